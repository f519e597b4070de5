"""The documentation: its Python blocks compile, its links resolve, and whole pages run."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.cli import main
from tests.support.drawn_scenes import draw_scenes

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("integrations/*/*.md"))
)
EXECUTED = (
    *("docs/ingestion.md", "docs/qdrant.md", "docs/chroma.md", "docs/langchain.md"),
    *(
        "docs/evaluation.md",
        "docs/llama-index.md",
        "integrations/langchain/README.md",
        "integrations/llama-index/README.md",
    ),
)
_LINK = re.compile(r"(?<!`)!?\[[^\]]*\]\(([^)\s]+)[^)]*\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", read(name), re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_blocks_compile(name: str) -> None:
    for block in blocks(name, "python"):
        compile(block, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_relative_links_resolve(name: str) -> None:
    text = _FENCE.sub("", read(name))
    for link in _LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("name", ["README.md", "docs/cli.md", "docs/evaluation.md"])
def test_documented_commands_and_options_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each `qwen3vl` command of a page exists and has the options that the page shows."""
    commands = [
        arguments
        for block in blocks(name, "sh")
        for line in block.splitlines()
        if (arguments := shlex.split(line, comments=True))[:1] == ["qwen3vl"]
    ]
    assert len(commands) >= 4
    for _, command, *arguments in commands:
        if command.startswith("-"):
            continue
        assert main([command, "--help"]) == 0
        options = {argument for argument in arguments if argument.startswith("--")}
        assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out)), arguments


@pytest.mark.parametrize("name", EXECUTED)
def test_page_runs_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tiny models in place of the real ones, in a folder with images."""
    monkeypatch.chdir(tmp_path)
    draw_scenes(tmp_path / "photos", 12)
    page = blocks(name, "python")
    assert len(page) >= 1
    assert len(page[0].splitlines()) <= 12
    namespace: dict[str, Any] = {}
    for block in page:
        exec(compile(re.sub(r"Qwen/Qwen3-VL-\w+-2B", "tiny", block), name, "exec"), namespace)
    output = capsys.readouterr().out
    if "report" in namespace or "ingest(Loader" in page[0]:
        assert "added=12" in output or output.startswith("12 0")
    assert ".png" in output
    for variable in ("client", "library", "store"):
        if hasattr(namespace.get(variable), "close"):
            namespace[variable].close()
            break

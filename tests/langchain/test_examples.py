"""The examples of docs/langchain.md and of the package's docstrings run as typed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import textwrap
from pathlib import Path
from typing import Any

import langchain_qwen3_vl
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "langchain.md"
_CODE_BLOCK = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```", re.DOTALL | re.MULTILINE)


def code_blocks(text: str) -> list[str]:
    return [textwrap.dedent(match["code"]) for match in _CODE_BLOCK.finditer(text)]


def public_objects() -> dict[str, Any]:
    """Public classes and functions of the package's modules, by qualified name."""
    objects: dict[str, Any] = {}
    for info in pkgutil.iter_modules(langchain_qwen3_vl.__path__):
        module = importlib.import_module(f"langchain_qwen3_vl.{info.name}")
        for name, value in vars(module).items():
            if (
                not name.startswith("_")
                and (inspect.isclass(value) or inspect.isfunction(value))
                and value.__module__ == module.__name__
            ):
                objects[f"{info.name}.{name}"] = value
    return objects


EXAMPLES = {
    name: block for name, value in public_objects().items() for block in code_blocks(inspect.getdoc(value) or "")
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring_example_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(EXAMPLES[name], name, "exec"), {})


@pytest.mark.parametrize("name", [name for name in langchain_qwen3_vl.__all__ if name[0].isupper()])
def test_exported_class_has_an_example(name: str) -> None:
    assert "Example:" in (getattr(langchain_qwen3_vl, name).__doc__ or "")


def test_code_blocks_of_the_page_run_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for number, block in enumerate(code_blocks(PAGE.read_text(encoding="utf-8")), start=1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), namespace)
    lines = capsys.readouterr().out.splitlines()
    # The retriever finds the slide that the query describes, and the image that the query shows.
    assert lines[0].endswith("slides.pdf page=2")
    assert sum(line.endswith("scene-000.png") for line in lines) >= 2
    assert "A blue triangle and a red star." in lines

"""Every class has an example in its docstring, and every example runs as it is typed."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent

import pytest

SOURCE = Path(__file__).parents[2] / "integrations/llama-index/src/llama_index"
DOCSTRINGS = {
    f"{path.stem}.{definition.name}": ast.get_docstring(definition) or ""
    for path in sorted(SOURCE.rglob("*.py"))
    for definition in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(definition, (ast.ClassDef, ast.FunctionDef))
    and (isinstance(definition, ast.ClassDef) or "```python" in (ast.get_docstring(definition) or ""))
}


def test_all_public_classes_are_checked() -> None:
    classes = {name.partition(".")[2] for name in DOCSTRINGS}
    assert {"Qwen3VLEmbedding", "Qwen3VLRerank", "Qwen3VLPictures", "Qwen3VLReader", "MediaQuery"} <= classes
    assert {"Qwen3VLRetriever", "Qwen3VLSplitter"} <= classes


OWN_ENGINE = {"settings.LlamaIndexModelSettings"}
"""Examples that set `max_length`, which a server's clients cannot."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.engine] if name in OWN_ENGINE else []) for name in DOCSTRINGS]
)
def test_example_runs_as_typed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    examples = re.findall(r"```python\n(.*?)```", DOCSTRINGS[name], re.DOTALL)
    assert examples, f"{name} has no example"
    for example in examples:
        exec(compile(dedent(example), name, "exec"), {})

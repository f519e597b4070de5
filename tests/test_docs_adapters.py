"""The page about adapters, run with the tiny model in place of the real one. tests/server runs its part on servers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.cli import main
from qwen3vl.model.hub import resolve_checkpoint
from tests.support.lora_adapters import write_adapter

PAGE = Path(__file__).parent.parent / "docs" / "adapters.md"


def test_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write_adapter(resolve_checkpoint("tiny", "embedding").folder, tmp_path / "my-adapter")
    text = re.sub(r"Qwen/Qwen3-VL-\w+-2B", "tiny", PAGE.read_text(encoding="utf-8"))
    text = re.sub(r"## In a server\n.*?(?=\n## )", "", text, flags=re.DOTALL)
    namespace: dict[str, Any] = {}
    blocks = re.findall(r"```(python|sh)\n(.*?)```", text, re.DOTALL)
    assert [language for language, _ in blocks] == ["python", "sh", "python"]
    for language, block in blocks:
        if language == "sh":
            assert main(shlex.split(block)[1:]) == 0
        else:
            exec(compile(block, "docs/adapters.md", "exec"), namespace)
    output = capsys.readouterr().out
    assert str(tmp_path / "my-adapter") in output
    assert float(output.split()[0]) < 0.999

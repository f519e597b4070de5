"""The code of docs/inputs.md runs as it stands, and prints what its comments say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "inputs.md"


def test_code_of_the_inputs_page_prints_its_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL))
    variables: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), variables)
    printed = capsys.readouterr().out
    comments = re.findall(r"print\(.*\)(?:  |\n *)# (.*)", code)
    assert len(comments) == 6
    for comment in comments:
        assert comment.split(": NaN")[0] in printed

"""docs/client.md: its code runs against a server, and its commands and options exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.cli import main
from tests.server.test_serve import needs_entry_point
from tests.support.drawn_scenes import draw_scenes
from tests.support.model_server import ModelServer
from tests.test_docs import blocks, read

PAGE = "docs/client.md"


def test_code_of_the_page_runs(
    tiny_server: ModelServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")  # long paths are not cut off then
    draw_scenes(tmp_path / "photos", 3)
    namespace: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(compile(block.replace("http://localhost:8000", tiny_server.url), PAGE, "exec"), namespace)
    output = capsys.readouterr().out
    assert re.fullmatch(r"\(2, 128\) \[RankedDocument\(.*\)\]\n\(1, 64\) 64\n\(1, 128\)\n", output)
    (commands,) = blocks(PAGE, "sh")
    for line in commands.replace("http://localhost:8000", tiny_server.url).splitlines():
        assert main(shlex.split(line)[1:]) == 0
    assert "photos/" in capsys.readouterr().out


@needs_entry_point
def test_options_of_the_server_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--help"]) == 0
    assert {"--media-cache", "--max-media"} <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert "--media-cache" in read(PAGE)
    assert "--max-media" in read(PAGE)

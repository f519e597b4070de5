"""The page about mteb, run with the tiny models, and with drawn tasks in place of those that have to be downloaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mteb
import pytest

from tests.mteb.drawn_tasks import DrawnClips, DrawnScenes, DrawnScenesReranking
from tests.support.drawn_scenes import draw_scenes

PAGE = Path(__file__).parents[2] / "docs" / "mteb.md"


def test_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = {
        "VidoreDocVQARetrieval": DrawnScenes,
        "MSVDT2VRetrieval": DrawnClips,
        "Vidore3HrQwen3VLEmbedding2BReranking.v2": DrawnScenesReranking,
    }
    for name in tasks:
        assert mteb.get_task(name).metadata.name == name
    monkeypatch.setattr(mteb, "get_task", lambda name: tasks[name]())
    monkeypatch.setattr(mteb, "get_tasks", lambda *, tasks: [mteb.get_task(name) for name in tasks])
    monkeypatch.chdir(tmp_path)
    drawn = draw_scenes(tmp_path / "photos", 12)
    text = re.sub(r"Qwen/Qwen3-VL-\w+-2B", "tiny", PAGE.read_text(encoding="utf-8"))
    captions = {path.name: scene.caption() for path, scene in drawn}
    text, count = re.subn(r"^CAPTIONS = .*$", f"CAPTIONS = {captions!r}", text, flags=re.MULTILINE)
    assert count == 1
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "docs/mteb.md", "exec"), namespace)
    output = capsys.readouterr().out
    assert all(name in output for name in ("DrawnScenes", "DrawnClips", "DrawnScenesReranking"))
    assert "Find a document image that matches the given query." in output
    assert float(output.split()[-1]) >= 0.9

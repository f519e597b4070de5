"""The code in the documentation runs, in the order in which a page shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.test_ingest import draw

DOCS = Path(__file__).parent.parent / "docs"
PAGES = ("ingestion.md", "qdrant.md", "chroma.md")


@pytest.mark.parametrize("name", PAGES)
def test_a_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the tiny model in place of the real one, in a folder with pictures."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos", 12)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 1
    assert len(blocks[0].splitlines()) <= 12
    shared: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block.replace("Qwen/Qwen3-VL-Embedding-2B", "tiny"), name, "exec"), shared)
    told = capsys.readouterr().out
    assert "added=12" in told or told.startswith("12 0")
    assert ".png" in told
    shared["client" if "client" in shared else "store"].close()

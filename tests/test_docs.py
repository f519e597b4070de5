"""The code in the documentation runs, in the order in which a page shows it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.drawn_scenes import draw_scenes

ROOT = Path(__file__).parent.parent
PAGES = (
    *("docs/ingestion.md", "docs/qdrant.md", "docs/chroma.md", "docs/langchain.md"),
    *("docs/llama-index.md", "integrations/langchain/README.md", "integrations/llama-index/README.md"),
)


@pytest.mark.parametrize("name", PAGES)
def test_a_page(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With the tiny models in place of the real ones, in a folder with pictures."""
    monkeypatch.chdir(tmp_path)
    draw_scenes(tmp_path / "photos", 12)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 1
    assert len(blocks[0].splitlines()) <= 12
    shared: dict[str, Any] = {}
    for block in blocks:
        exec(compile(re.sub(r"Qwen/Qwen3-VL-\w+-2B", "tiny", block), name, "exec"), shared)
    told = capsys.readouterr().out
    if "report" in shared or "ingest(Loader" in blocks[0]:
        assert "added=12" in told or told.startswith("12 0")
    assert ".png" in told
    for opened in ("client", "library", "store"):
        if hasattr(shared.get(opened), "close"):
            shared[opened].close()
            break

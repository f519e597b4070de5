"""docs/vllm.md: its code runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.golden.inputs import scene
from tests.test_docs import blocks

PAGE = "docs/vllm.md"


def test_code_of_the_page_runs(
    vllm_server: Callable[[str], str],
    checkpoints: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a folder that has the files of the models under the names that vLLM's servers tell."""
    (tmp_path / "photos").mkdir()
    Image.fromarray(scene(96, 96, 1)).save(tmp_path / "photos" / "0000.png")
    (tmp_path / "models").mkdir()
    for name, folder in (
        *(("embedding", "embedding"), ("reranker", "reranker")),
        ("models/Qwen3-VL-Embedding-2B", "embedding"),
    ):
        (tmp_path / name).symlink_to(checkpoints / folder)
    monkeypatch.chdir(tmp_path)
    urls = {
        "vllm+http://localhost:8000": vllm_server("embedder"),
        "vllm+http://localhost:8001": vllm_server("reranker"),
    }
    namespace: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        for documented, url in urls.items():
            block = block.replace(documented, url)
        exec(compile(block, PAGE, "exec"), namespace)
    vectors, weights = capsys.readouterr().out.splitlines()
    assert vectors.startswith("(2, 96) [RankedDocument(index=")
    assert len(weights) == 16

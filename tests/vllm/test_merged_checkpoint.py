"""vLLM loads what `qwen3vl merge` writes, with the answers of the adapter.

VLLM_PYTHON is the interpreter of an environment with vLLM; without it, these tests are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.vllm_side import VllmModel, embedding_prompt, reranking_prompt
from qwen3vl import Embedder, Reranker
from qwen3vl.cli import main
from tests.support.lora_adapters import TEXT_LAYERS, train

PYTHON = os.environ.get("VLLM_PYTHON", "")
pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="VLLM_PYTHON names no interpreter of an environment with vLLM"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
TEXTS = ["a red circle", "the annual report, page 4, with a table of figures", "ein deutscher Satz", "x" * 200]


def merge(base: Path, folder: Path) -> tuple[Path, Path]:
    """Return an adapter that peft made, and the checkpoint into which it was merged."""
    pytest.importorskip("peft", reason="the adapters are made by peft, which is not installed")
    trained = train(base, folder, target_modules=[*TEXT_LAYERS, "qkv"])
    assert main(["merge", str(base), str(trained.folder), str(folder / "out")]) == 0
    return trained.folder, folder / "out"


def test_vectors(checkpoints: Path, tmp_path: Path) -> None:
    base = checkpoints / "embedding"
    adapter, merged = merge(base, tmp_path)
    with Embedder(base, adapter=adapter, device="cpu") as embedder:
        expected = embedder.embed(TEXTS)
    with Embedder(base, device="cpu") as embedder:
        without_adapter = embedder.embed(TEXTS)
    with VllmModel(Path(PYTHON), merged, reranker=False, images=0, threads=1) as model:
        vectors = model([embedding_prompt(text) for text in TEXTS])
    assert (vectors * expected).sum(axis=1).min() > 0.99999
    assert (without_adapter * expected).sum(axis=1).max() < 0.99


def test_scores(checkpoints: Path, tmp_path: Path) -> None:
    base = checkpoints / "reranker"
    adapter, merged = merge(base, tmp_path)
    with Reranker(base, adapter=adapter, device="cpu") as reranker:
        expected = reranker.score("a red thing", TEXTS)
    with Reranker(base, device="cpu") as reranker:
        without_adapter = reranker.score("a red thing", TEXTS)
    with VllmModel(Path(PYTHON), merged, reranker=True, images=0, threads=1) as model:
        scores = model([reranking_prompt("a red thing", text) for text in TEXTS])
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    assert np.abs(without_adapter - expected).max() > 1e-3

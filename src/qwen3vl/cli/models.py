"""Which models a command uses: those that the caller names, else those that go with the store."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from qwen3vl.embedder import Embedder
from qwen3vl.recipe import Recipe
from qwen3vl.reranker import Reranker

EMBEDDER = "Qwen/Qwen3-VL-Embedding-2B"
RERANKER = "Qwen/Qwen3-VL-Reranker-2B"


def open_embedder(options: argparse.Namespace, stored: Recipe | None, **settings: Any) -> Embedder:
    """The named model, or the store's own with the settings that its recipe tells."""
    if stored is not None:
        revision = stored.revision if options.model is None else None
        settings = {**stored.settings, "revision": revision, **settings}
    name = options.model or (stored.model if stored else EMBEDDER)
    return Embedder(name, device=options.device, dtype=options.dtype, **settings)


def open_reranker(options: argparse.Namespace, stored: Recipe) -> Reranker:
    """The named reranker, or the one that goes with the store's model: tiny to tiny, 8B to 8B, else 2B."""
    name = options.reranker or _partner(stored.model)
    return Reranker(name, device=options.device, dtype=options.dtype)


def _partner(model: str) -> str:
    if model == "tiny":
        return "tiny"
    beside = Path(model.replace("Embedding", "Reranker").replace("embedding", "reranker"))
    if str(beside) != model and beside.is_dir():
        return str(beside)
    return RERANKER.replace("2B", "8B") if "8B" in model else RERANKER

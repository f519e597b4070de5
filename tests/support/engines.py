"""Embedders whose engine has other stages than the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qwen3vl import Embedder
from qwen3vl.engine import Engine


def embedder_with(folder: Path, *, stages: dict[str, Any], **settings: Any) -> Embedder:
    """Return an embedder whose engine calls the given `fit`, `decode` or `forward`."""
    embedder = Embedder(folder, device=settings.pop("device", "cpu"), **settings)
    engine = embedder.engine
    embedder.engine = Engine(engine.checkpoint, engine.settings, engine.limits, **stages)
    return embedder

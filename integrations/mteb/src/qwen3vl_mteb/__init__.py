"""qwen3vl in mteb: models, and vector stores with them, on benchmarks of texts, images and videos.

Names are imported when they are first used, so that importing this package imports neither mteb nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen3vl_mteb.cross_encoder import Qwen3VLCrossEncoder
    from qwen3vl_mteb.encoder import Qwen3VLEncoder
    from qwen3vl_mteb.instructions import OFFICIAL_INSTRUCTIONS
    from qwen3vl_mteb.search import StoreSearch

__all__ = ["OFFICIAL_INSTRUCTIONS", "Qwen3VLCrossEncoder", "Qwen3VLEncoder", "StoreSearch"]

_MODULES = {
    "OFFICIAL_INSTRUCTIONS": "instructions",
    "Qwen3VLCrossEncoder": "cross_encoder",
    "Qwen3VLEncoder": "encoder",
    "StoreSearch": "search",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

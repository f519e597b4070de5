"""qwen3vl on many machines: bulk embedding and ingestion with Ray Data.

Names are imported when they are first used, so that importing this package does not import Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen3vl_ray.embedding import Embed, embed
    from qwen3vl_ray.failures import split_errors
    from qwen3vl_ray.reranking import Rerank, rerank

__all__ = ["Embed", "Rerank", "embed", "rerank", "split_errors"]

_MODULES = {
    "Embed": "embedding",
    "Rerank": "reranking",
    "embed": "embedding",
    "rerank": "reranking",
    "split_errors": "failures",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

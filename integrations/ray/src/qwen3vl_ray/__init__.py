"""qwen3vl on many machines: bulk embedding and ingestion with Ray Data.

Names are imported when they are first used, so that importing this package does not import Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen3vl_ray.embedding import Embed, embed
    from qwen3vl_ray.failures import split_errors
    from qwen3vl_ray.ingestion import ingest
    from qwen3vl_ray.reading import read
    from qwen3vl_ray.reranking import Rerank, rerank
    from qwen3vl_ray.target import Target
    from qwen3vl_ray.writing import StoreDatasink, write

__all__ = [
    "Embed",
    "Rerank",
    "StoreDatasink",
    "Target",
    "embed",
    "ingest",
    "read",
    "rerank",
    "split_errors",
    "write",
]

_MODULES = {
    "Embed": "embedding",
    "Rerank": "reranking",
    "StoreDatasink": "writing",
    "Target": "target",
    "embed": "embedding",
    "ingest": "ingestion",
    "read": "reading",
    "rerank": "reranking",
    "split_errors": "failures",
    "write": "writing",
}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

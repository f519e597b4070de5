"""Qwen3-VL-Embedding and Qwen3-VL-Reranker behind the tools people already use.

Names are loaded when they are first used: importing this package imports neither torch nor a model.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen3vl.documents import Document
    from qwen3vl.embedder import Embedder
    from qwen3vl.errors import (
        BatchError,
        InputError,
        ItemError,
        MediaError,
        ModelError,
        PolicyError,
        Qwen3VLError,
        RecipeError,
        StoreError,
    )
    from qwen3vl.ingestion import IngestError, Report, aingest, ingest
    from qwen3vl.loaders import Loader
    from qwen3vl.media import MediaPolicy
    from qwen3vl.recipe import Recipe
    from qwen3vl.reranker import Reranker
    from qwen3vl.results import Batch
    from qwen3vl.retriever import AsyncRetriever, Retriever
    from qwen3vl.stores import AsyncStore, Hit, Point, Search, Store, open_store

__version__ = "0.1.0"

_HOME = {
    "Document": "documents",
    "Embedder": "embedder",
    "Loader": "loaders",
    **dict.fromkeys(("AsyncRetriever", "Retriever"), "retriever"),
    **dict.fromkeys(("IngestError", "Report", "aingest", "ingest"), "ingestion"),
    **dict.fromkeys(("AsyncStore", "Hit", "Point", "Search", "Store", "open_store"), "stores"),
    "Reranker": "reranker",
    "MediaPolicy": "media",
    "Recipe": "recipe",
    "Batch": "results",
    **dict.fromkeys(
        (
            *("BatchError", "InputError", "ItemError", "MediaError", "ModelError", "PolicyError"),
            *("Qwen3VLError", "RecipeError", "StoreError"),
        ),
        "errors",
    ),
}

__all__ = [
    "AsyncRetriever",
    "AsyncStore",
    "Batch",
    "BatchError",
    "Document",
    "Embedder",
    "Hit",
    "IngestError",
    "InputError",
    "ItemError",
    "Loader",
    "MediaError",
    "MediaPolicy",
    "ModelError",
    "Point",
    "PolicyError",
    "Qwen3VLError",
    "Recipe",
    "RecipeError",
    "Report",
    "Reranker",
    "Retriever",
    "Search",
    "Store",
    "StoreError",
    "__version__",
    "aingest",
    "ingest",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'qwen3vl' has no attribute {name!r}")
    return getattr(import_module(f"qwen3vl.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

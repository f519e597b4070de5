"""Qwen3-VL-Embedding and Qwen3-VL-Reranker for LangChain, LlamaIndex, Qdrant, Chroma and plain Python.

Names are imported when they are first used, so importing this package imports neither torch nor a model.
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
        ServerError,
        StoreError,
    )
    from qwen3vl.ingestion import IngestError, Report, aingest, ingest
    from qwen3vl.loaders import Loader
    from qwen3vl.media import MediaPolicy
    from qwen3vl.recipe import Recipe
    from qwen3vl.reranker import Reranker
    from qwen3vl.results import Batch, RankedDocument
    from qwen3vl.retriever import AsyncRetriever, Retriever
    from qwen3vl.settings import ClientSettings, EngineSettings
    from qwen3vl.stores import AsyncStore, CopyReport, Hit, Point, Search, Store, copy_store, open_store

__version__ = "0.1.0"

_EXPORTS = {
    "documents": ("Document",),
    "embedder": ("Embedder",),
    "errors": (
        *("BatchError", "InputError", "ItemError", "MediaError", "ModelError", "PolicyError"),
        *("Qwen3VLError", "RecipeError", "ServerError", "StoreError"),
    ),
    "ingestion": ("IngestError", "Report", "aingest", "ingest"),
    "loaders": ("Loader",),
    "media": ("MediaPolicy",),
    "recipe": ("Recipe",),
    "reranker": ("Reranker",),
    "results": ("Batch", "RankedDocument"),
    "retriever": ("AsyncRetriever", "Retriever"),
    "settings": ("ClientSettings", "EngineSettings"),
    "stores": ("AsyncStore", "CopyReport", "Hit", "Point", "Search", "Store", "copy_store", "open_store"),
}
"""The public names of each module."""
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = [
    "AsyncRetriever",
    "AsyncStore",
    "Batch",
    "BatchError",
    "ClientSettings",
    "CopyReport",
    "Document",
    "Embedder",
    "EngineSettings",
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
    "RankedDocument",
    "Recipe",
    "RecipeError",
    "Report",
    "Reranker",
    "Retriever",
    "Search",
    "ServerError",
    "Store",
    "StoreError",
    "__version__",
    "aingest",
    "copy_store",
    "ingest",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'qwen3vl' has no attribute {name!r}")
    return getattr(import_module(f"qwen3vl.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

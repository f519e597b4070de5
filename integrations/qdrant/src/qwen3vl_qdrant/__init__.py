"""Qdrant as a store of qwen3vl."""

from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.store import QdrantStore, open_store

__all__ = ["Layout", "QdrantStore", "open_store"]

"""Qdrant as a vector store of qwen3vl."""

from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.measure import Figure, measure, table
from qwen3vl_qdrant.store import AsyncQdrantStore, QdrantStore, open_store

__all__ = ["AsyncQdrantStore", "Figure", "Layout", "QdrantStore", "measure", "open_store", "table"]

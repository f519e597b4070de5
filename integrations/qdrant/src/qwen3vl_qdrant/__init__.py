"""Qdrant as a store of qwen3vl."""

from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.measure import Figure, measure, table
from qwen3vl_qdrant.store import QdrantStore, open_store

__all__ = ["Figure", "Layout", "QdrantStore", "measure", "open_store", "table"]

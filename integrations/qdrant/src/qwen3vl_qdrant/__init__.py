"""Qdrant as a vector store of qwen3vl."""

from qwen3vl_qdrant.bm25 import Bm25
from qwen3vl_qdrant.edge.client import async_edge_client, edge_client
from qwen3vl_qdrant.edge_store import QdrantEdgeStore
from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.measure import Figure, measure, table
from qwen3vl_qdrant.opening import open_store
from qwen3vl_qdrant.store import AsyncQdrantStore, QdrantStore

__all__ = [
    "AsyncQdrantStore",
    "Bm25",
    "Figure",
    "Layout",
    "QdrantEdgeStore",
    "QdrantStore",
    "async_edge_client",
    "edge_client",
    "measure",
    "open_store",
    "table",
]

"""Chroma as a vector store of qwen3vl, and qwen3vl as an embedding function of Chroma."""

from qwen3vl_chroma.functions import MediaLoader, Qwen3VLEmbeddingFunction
from qwen3vl_chroma.store import AsyncChromaStore, ChromaStore, open_store

__all__ = ["AsyncChromaStore", "ChromaStore", "MediaLoader", "Qwen3VLEmbeddingFunction", "open_store"]

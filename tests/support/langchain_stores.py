"""LangChain's vector stores, in memory or on disk, for tests that run over several of them."""

from __future__ import annotations

from pathlib import Path

from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_vl import Qwen3VLEmbeddings
from qdrant_client import QdrantClient, models


def open_vector_store(kind: str, embeddings: Qwen3VLEmbeddings, folder: Path) -> VectorStore:
    """Open or create a store: "memory", or "chroma" or "qdrant" in a folder."""
    if kind == "memory":
        return InMemoryVectorStore(embeddings)
    if kind == "chroma":
        return Chroma(
            "documents",
            embeddings,
            persist_directory=str(folder),
            collection_configuration={"hnsw": {"space": "cosine"}},
        )
    client = QdrantClient(path=str(folder))
    if not client.collection_exists("documents"):
        size = embeddings.embedder.dimension
        client.create_collection("documents", models.VectorParams(size=size, distance=models.Distance.COSINE))
    return QdrantVectorStore(client, "documents", embeddings)


def close_vector_store(store: VectorStore) -> None:
    if isinstance(store, QdrantVectorStore):
        store.client.close()
    elif isinstance(store, Chroma):
        # Chroma shares one database per folder in a process until the client is closed, and has no public close.
        store._client.close()


def source_name(document: Document) -> str:
    """Name of the file that a document comes from."""
    return Path(document.metadata["source"]).name

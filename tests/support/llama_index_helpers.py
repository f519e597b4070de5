"""Helpers of the tests of indexes, pipelines and query engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import chromadb
from llama_index.core.schema import ImageNode, NodeWithScore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.vector_stores.chroma import ChromaVectorStore
from llama_index.vector_stores.qdrant import QdrantVectorStore
from qdrant_client import QdrantClient

from tests.support.sample_library import MOVER, STAR


def image_nodes(folder: Path, *names: str) -> list[ImageNode]:
    """Nodes with an image and nothing else: no text, no metadata."""
    return [ImageNode(image_path=str(folder / name)) for name in names]


def best_source(hits: Sequence[NodeWithScore]) -> str:
    """The file name of the first hit's source."""
    return Path(hits[0].node.metadata["source"]).name


def check_retrieval(retriever: Any, embed_model: Qwen3VLEmbedding, library_folder: Path) -> None:
    """Assert that an image, a video and a text are found, by text and by bundles with an image and a video."""
    assert best_source(retriever.retrieve(STAR.caption())) == "star.png"
    assert (
        best_source(retriever.retrieve(embed_model.query_bundle({"image": str(library_folder / "star.png")})))
        == "star.png"
    )
    assert (
        best_source(retriever.retrieve(embed_model.query_bundle({"video": str(library_folder / "mover.mp4")})))
        == "mover.mp4"
    )
    (note, *_) = retriever.retrieve("a cyan square on the left")
    assert "cyan square" in note.node.get_content()
    assert "mover.mp4" in [Path(hit.node.metadata["source"]).name for hit in retriever.retrieve(MOVER.caption())]


def open_vector_store(kind: str, folder: Path) -> tuple[Any, Callable[[], None]]:
    """Return a vector store of this kind in a folder, and the function that closes it."""
    if kind == "simple":
        return SimpleVectorStore(), lambda: None
    if kind == "chroma":
        client: Any = chromadb.PersistentClient(str(folder / "chroma"))
        collection = client.get_or_create_collection(
            "sample", metadata={"hnsw:space": "cosine"}, embedding_function=None
        )
        return ChromaVectorStore(chroma_collection=collection), client.close
    qdrant = QdrantClient(path=str(folder / "qdrant"))
    return QdrantVectorStore("sample", client=qdrant), qdrant.close

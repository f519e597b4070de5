"""LangChain's Qdrant store over a folder: documents of its own, and a collection that `ingest` wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_vl import Qwen3VLEmbeddings, add_documents
from qdrant_client import models
from qwen3vl_qdrant import Layout, QdrantEdgeStore, edge_client
from qwen3vl_qdrant.edge.client import EdgeClient

from qwen3vl import Loader, ingest
from tests.support.langchain_stores import source_name
from tests.support.sample_library import SLIDE, STAR


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, embeddings: Qwen3VLEmbeddings, library_folder: Path) -> Path:
    """A folder that `ingest` wrote, with a collection of full vectors and one with short, quantized ones."""
    folder = tmp_path_factory.mktemp("edge") / "library"
    for name, layout in (("qwen3vl", Layout()), ("short", Layout(short=32, quantization="scalar"))):
        store = QdrantEdgeStore(folder, name, layout=layout)
        ingest(Loader().load([library_folder]), embeddings.embedder, store)
        store.close()
    return folder


@pytest.fixture
def client(folder: Path) -> Iterator[EdgeClient]:
    with edge_client(folder) as client:
        yield client


@pytest.mark.parametrize("collection", ["qwen3vl", "short"])
def test_ingested_folder_is_searched_by_text_and_picture(
    collection: str, client: EdgeClient, embeddings: Qwen3VLEmbeddings, library_folder: Path
) -> None:
    store = QdrantVectorStore(client, collection, embeddings)
    star = str(library_folder / "star.png")
    retriever = store.as_retriever(search_kwargs={"k": 8})
    for query in (STAR.caption(), {"image": star}):
        best = retriever.invoke(query)[0]  # type: ignore[arg-type]
        assert best.metadata["image"] == best.metadata["source"] == star
        assert best.metadata["kind"] == "picture"
    note = next(document for document in retriever.invoke("a cyan square on the left") if document.page_content)
    assert (source_name(note), "cyan square" in note.page_content) == ("notes.md", True)
    slide = store.similarity_search(SLIDE.caption(), 1, filter=_kind("page"))[0]
    assert (source_name(slide), slide.metadata["locator"]) == ("slides.pdf", "page=2")
    assert slide.metadata["image"].endswith("slides.pdf#page=2")
    assert store.similarity_search_with_score_by_vector(embeddings.embed_image([star])[0], 1)[0][1] > 0.999


def test_search_for_diverse_hits_and_by_threshold(client: EdgeClient, embeddings: Qwen3VLEmbeddings) -> None:
    store = QdrantVectorStore(client, "qwen3vl", embeddings)
    diverse = store.max_marginal_relevance_search(STAR.caption(), k=5, fetch_k=20, lambda_mult=0.9)
    assert source_name(diverse[0]) == "star.png"
    assert len({source_name(document) for document in diverse}) > 2
    scores = [score for _, score in store.similarity_search_with_score(STAR.caption(), k=9)]
    close = store.similarity_search(STAR.caption(), k=9, score_threshold=(scores[2] + scores[3]) / 2)
    assert len(close) == 3


def test_documents_are_added_found_deleted_and_kept(
    tmp_path: Path, embeddings: Qwen3VLEmbeddings, library: list[Document], library_folder: Path
) -> None:
    with edge_client(tmp_path / "store") as client:
        params = models.VectorParams(size=embeddings.embedder.dimension, distance=models.Distance.COSINE)
        client.create_collection("documents", params)
        ids = add_documents(QdrantVectorStore(client, "documents", embeddings), library)
    with edge_client(tmp_path / "store") as client:
        store = QdrantVectorStore(client, "documents", embeddings)
        assert client.count("documents").count == len(library)
        (best,) = asyncio.run(store.asimilarity_search(STAR.caption(), k=1))
        assert source_name(best) == "star.png"
        deleted = [
            point_id for point_id, document in zip(ids, library, strict=True) if source_name(document) == "star.png"
        ]
        assert asyncio.run(store.adelete(deleted))
        assert source_name(store.similarity_search(STAR.caption(), k=1)[0]) != "star.png"
        assert store.get_by_ids(deleted) == []
        (kept,) = store.get_by_ids([ids[0]])
        assert kept.page_content == library[0].page_content


def _kind(kind: str) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="metadata.kind", match=models.MatchValue(value=kind))])

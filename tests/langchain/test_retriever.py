"""`Qwen3VLRetriever` searches a collection that `ingest` wrote, with LangChain's callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLReranker, Qwen3VLRetriever

from qwen3vl import InputError, Loader, MediaPolicy, Retriever, ingest, open_store
from qwen3vl.stores import Store
from tests.support.langchain_stores import source_name
from tests.support.sample_library import STAR


class RecordingHandler(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tags: list[Any] = []
        self.documents: list[Document] = []

    def on_retriever_start(self, serialized: Any, query: Any, *, tags: Any = None, **kwargs: Any) -> None:
        self.tags.append(tags)

    def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
        self.documents = list(documents)


@pytest.fixture(scope="module")
def core_store(embeddings: Qwen3VLEmbeddings, library_folder: Path) -> Iterator[Store]:
    store = open_store(":memory:")
    ingest(Loader().load(library_folder), embeddings.embedder, store)
    yield store
    store.close()


@pytest.fixture
def retriever(embeddings: Qwen3VLEmbeddings, core_store: Store, policy: MediaPolicy) -> Qwen3VLRetriever:
    reranker = Qwen3VLReranker(model="tiny", policy=policy).reranker
    core = Retriever(embeddings.embedder, core_store, reranker)
    return Qwen3VLRetriever(retriever=core, k=3, tags=["mine"], metadata={"a": 1})


def test_invoke_returns_scored_documents_and_calls_the_callbacks(retriever: Qwen3VLRetriever) -> None:
    handler = RecordingHandler()
    documents = retriever.invoke(STAR.caption(), config={"callbacks": [handler]})
    assert (handler.tags, handler.documents) == ([["mine"]], documents)
    assert len(documents) == 3
    assert source_name(documents[0]) == "star.png"
    assert documents[0].metadata["relevance_score"] > 0.5
    assert -1 <= documents[0].metadata["score"] <= 1.00001
    assert isinstance(retriever.retriever, Retriever)
    (hit,) = retriever.retriever.search(STAR.caption(), 1)
    assert documents[0].id == hit.id


async def test_ainvoke_and_batch_return_the_same(retriever: Qwen3VLRetriever) -> None:
    expected = retriever.invoke(STAR.caption())
    awaited = await retriever.ainvoke(STAR.caption())
    for documents in (awaited, *retriever.batch([STAR.caption()] * 2)):
        assert [document.id for document in documents] == [document.id for document in expected]
        # Queries of two threads may share a batch: other sizes of products, other rounding.
        scores = [document.metadata["relevance_score"] for document in documents]
        assert scores == pytest.approx([document.metadata["relevance_score"] for document in expected], abs=1e-6)


def test_filter_applies(retriever: Qwen3VLRetriever) -> None:
    pages = retriever.invoke("a scene", k=8, where={"kind": "page"})
    assert {page.metadata["locator"] for page in pages} == {"page=1", "page=2"}


def test_content_blocks_are_accepted_as_query(retriever: Qwen3VLRetriever, library_folder: Path) -> None:
    query: Any = [{"type": "image", "url": str(library_folder / "star.png")}]
    assert source_name(retriever.invoke(query)[0]) == "star.png"
    unusable: Any = [{"type": "audio"}]
    with pytest.raises(InputError, match="the query"):
        retriever.invoke(unusable)


def test_options_field_filters_and_groups(embeddings: Qwen3VLEmbeddings, core_store: Store) -> None:
    options = {"where": {"kind": "page"}, "one_per": "source"}
    retriever = Qwen3VLRetriever(retriever=Retriever(embeddings.embedder, core_store), options=options)
    (page,) = retriever.invoke("a scene")
    assert source_name(page) == "slides.pdf"
    assert "relevance_score" not in page.metadata


def test_document_that_the_reranker_cannot_read_has_the_reason(
    embeddings: Qwen3VLEmbeddings, core_store: Store
) -> None:
    """The reranker's policy allows no file, so that it reads only the texts."""
    reranker = Qwen3VLReranker(model="tiny").reranker
    documents = Qwen3VLRetriever(retriever=Retriever(embeddings.embedder, core_store, reranker), k=20).invoke("a")
    scores = [document.metadata["relevance_score"] for document in documents]
    assert None in scores
    first_unread = scores.index(None)
    assert scores[first_unread:] == [None] * (len(scores) - first_unread)
    assert all("outside the folders" in document.metadata["rerank_error"] for document in documents[first_unread:])
    assert all("rerank_error" not in document.metadata for document in documents[:first_unread])

"""LangChain's `QdrantVectorStore` searches collections of `ingest` by words and vectors, and adds to them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_qdrant import QdrantVectorStore, RetrievalMode
from langchain_qwen3_vl import Bm25Embeddings, Qwen3VLEmbeddings, Qwen3VLRetriever
from qdrant_client import models
from qwen3vl_qdrant import QdrantStore

from qwen3vl import Document, Retriever, ingest, open_store


@pytest.fixture(params=["folder", ":memory:"])
def collection(request: pytest.FixtureRequest, embeddings: Qwen3VLEmbeddings, tmp_path: Path) -> Iterator[QdrantStore]:
    store = open_store(
        str(tmp_path / "store") if request.param == "folder" else request.param, layout={"hybrid": "german"}
    )
    assert isinstance(store, QdrantStore)
    documents = [
        Document(f"teile/{number}.md", "text", text=f"Ventile AX-{7000 + number} aus Messing") for number in range(40)
    ]
    ingest(documents, embeddings.embedder, store)
    yield store
    store.close()


def vector_store(collection: QdrantStore, embeddings: Qwen3VLEmbeddings, mode: RetrievalMode) -> QdrantVectorStore:
    assert collection.layout is not None
    assert collection.layout.bm25 is not None
    return QdrantVectorStore(
        collection.client,
        collection.collection,
        embeddings,
        sparse_embedding=Bm25Embeddings(collection.layout.bm25),
        sparse_vector_name="text",
        retrieval_mode=mode,
    )


@pytest.mark.parametrize("mode", [RetrievalMode.HYBRID, RetrievalMode.SPARSE])
async def test_words_are_found(collection: QdrantStore, embeddings: Qwen3VLEmbeddings, mode: RetrievalMode) -> None:
    store = vector_store(collection, embeddings, mode)
    for number in (3, 31):
        query = f"Ventil AX-{7000 + number}"
        assert f"teile/{number}.md" in [hit.metadata["source"] for hit in store.similarity_search(query, 2)]
        assert f"teile/{number}.md" in [hit.metadata["source"] for hit in await store.asimilarity_search(query, 2)]
    only = models.Filter(
        must=[models.FieldCondition(key="metadata.source", match=models.MatchValue(value="teile/5.md"))]
    )
    assert [hit.metadata["source"] for hit in store.similarity_search("AX-7031", 9, filter=only)] == ["teile/5.md"]


def test_added_documents_are_found_by_the_core(collection: QdrantStore, embeddings: Qwen3VLEmbeddings) -> None:
    store = vector_store(collection, embeddings, RetrievalMode.HYBRID)
    store.add_documents([LangChainDocument("Dichtung BX-9", metadata={"source": "neu.md"})])
    retriever = Retriever(embeddings.embedder, collection)
    assert retriever.search("Dichtungen", 1, mode="text")[0].document.source == "neu.md"
    documents = Qwen3VLRetriever(retriever=retriever, k=1, options={"mode": "text"}).invoke("BX-9")
    assert [document.metadata["source"] for document in documents] == ["neu.md"]

"""Caches and filters of LangChain around embeddings of documents with media, and the filter of this package."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import VectorStore
from langchain_qwen3_vl import (
    Qwen3VLEmbeddings,
    Qwen3VLEmbeddingsFilter,
    aadd_documents,
    add_documents,
    from_langchain,
)

from qwen3vl import BatchError, Embedder, InputError
from tests.support.engines import assert_close, await_while_busy
from tests.support.langchain_stores import close_vector_store, open_vector_store
from tests.support.sample_library import STAR


@pytest.fixture
def documents(library_folder: Path) -> list[Document]:
    star = str(library_folder / "star.png")
    return [
        Document("a green circle", metadata={"source": "0"}),
        Document("", metadata={"image": star, "source": "1"}),
        Document("", metadata={"image": star, "source": "2"}),
        Document("", metadata={"image": str(library_folder / "0.png"), "source": "3"}),
    ]


def sources(documents: Any) -> list[str]:
    return [document.metadata["source"] for document in documents]


@pytest.mark.parametrize("kind", ["qdrant", "chroma", "memory"])
@pytest.mark.parametrize("is_async", [False, True], ids=["add_documents", "aadd_documents"])
def test_store_with_cached_embeddings_gets_the_vectors_of_media(
    kind: str, is_async: bool, embeddings: Qwen3VLEmbeddings, library_folder: Path, tmp_path: Path
) -> None:
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace=embeddings.embedder.recipe.digest, key_encoder="sha256"
    )
    store: VectorStore = open_vector_store(kind, embeddings, tmp_path)
    attribute = next(name for name, value in vars(store).items() if value is embeddings)
    setattr(store, attribute, cached)
    caption = "a caption"
    (text_vector,) = cached.embed_documents([caption])
    document = Document(caption, metadata={"image": str(library_folder / "star.png")})
    for _ in range(2):  # the second time the cache would know everything
        if is_async:
            asyncio.run(aadd_documents(store, [document], embeddings))
        else:
            add_documents(store, [document], embeddings)
    assert store.embeddings is cached
    vector = embeddings.embed_query(document)
    ((_, score),) = store.similarity_search_with_score(document, k=1)
    assert min(abs(score - 1), abs(score)) < 1e-5
    assert cached.embed_documents([caption]) == [text_vector]
    assert not np.allclose(vector, text_vector, atol=0.01)
    close_vector_store(store)


@pytest.mark.engine
async def test_awaits_share_forward_passes(embeddings: Qwen3VLEmbeddings, checkpoints: Path) -> None:
    documents = [Document(text, metadata={"source": text}) for text in ("a red star", "a blue circle")]
    embeddings_filter = Qwen3VLEmbeddingsFilter(embeddings=embeddings)
    calls = [embeddings_filter.acompress_documents(documents, "a star") for _ in range(20)]
    results, num_passes = await await_while_busy(checkpoints / "embedding", embeddings.embedder.engine, calls, 40)
    assert num_passes < 10
    expected = embeddings_filter.compress_documents(documents, "a star")
    assert all(sources(filtered) == sources(expected) for filtered in results)


def test_filter_returns_the_most_similar_documents_first(
    embeddings: Qwen3VLEmbeddings, documents: list[Document], tiny_embedder: Embedder
) -> None:
    vectors = tiny_embedder.embed([from_langchain(document).input for document in documents])
    similarities = vectors @ tiny_embedder.embed(STAR.caption())[0]
    embeddings_filter = Qwen3VLEmbeddingsFilter(embeddings=embeddings)
    filtered = embeddings_filter.compress_documents(documents, STAR.caption())
    assert sources(filtered) == [str(index) for index in np.argsort(-similarities, kind="stable")]
    scores = [document.metadata["query_similarity_score"] for document in filtered]
    np.testing.assert_allclose(scores, np.sort(similarities)[::-1], atol=1e-6)
    assert all("query_similarity_score" not in document.metadata for document in documents)
    awaited = asyncio.run(embeddings_filter.acompress_documents(documents, STAR.caption()))
    assert sources(awaited) == sources(filtered)
    assert_close([document.metadata["query_similarity_score"] for document in awaited], scores)
    assert asyncio.run(embeddings_filter.acompress_documents([], "a")) == []
    assert pickle.loads(pickle.dumps(embeddings_filter)) == embeddings_filter
    image: Any = {"image": documents[3].metadata["image"]}
    assert sources(embeddings_filter.compress_documents(documents, image))[0] == "3"
    assert embeddings_filter.compress_documents([], "a") == []
    with pytest.raises(InputError, match="the query"):
        embeddings_filter.compress_documents(documents, "")


def test_filter_limits_number_similarity_and_redundancy(
    embeddings: Qwen3VLEmbeddings, documents: list[Document]
) -> None:
    def filtered(**fields: Any) -> list[str]:
        return sources(
            Qwen3VLEmbeddingsFilter(embeddings=embeddings, **fields).compress_documents(documents, STAR.caption())
        )

    assert filtered(k=2) == ["1", "2"]
    everything = filtered(k=None)
    assert len(everything) == 4
    assert filtered(redundancy_threshold=0.99) == [source for source in everything if source != "2"]
    assert filtered(similarity_threshold=2.0) == []
    assert filtered(similarity_threshold=-1.0) == everything


def test_filter_returns_unreadable_documents_last_and_never_above_a_threshold(
    embeddings: Qwen3VLEmbeddings, documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Document("", metadata={"image": "/etc/hostname", "source": "broken", "query_similarity_score": 9})
    embeddings_filter = Qwen3VLEmbeddingsFilter(embeddings=embeddings)
    last = embeddings_filter.compress_documents([broken, *documents], "a")[-1]
    assert last.metadata["query_similarity_score"] is None
    assert "outside the folders" in last.metadata["filter_error"]
    assert "cannot filter item 0 (/etc/hostname)" in caplog.text
    strict = Qwen3VLEmbeddingsFilter(embeddings=embeddings, similarity_threshold=-1.0)
    assert "broken" not in sources(strict.compress_documents([broken, *documents], "a"))


def test_filter_works_in_a_compression_retriever(
    embeddings: Qwen3VLEmbeddings, documents: list[Document], tmp_path: Path
) -> None:
    store = open_vector_store("memory", embeddings, tmp_path)
    add_documents(store, documents)
    retriever = ContextualCompressionRetriever(
        base_compressor=Qwen3VLEmbeddingsFilter(embeddings=embeddings, redundancy_threshold=0.99, k=2),
        base_retriever=store.as_retriever(),
    )
    assert sources(retriever.invoke(STAR.caption()))[0] in ("1", "2")


def test_filters_of_langchain_name_this_filter(
    embeddings: Qwen3VLEmbeddings, documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    community = pytest.importorskip(
        "langchain_community.document_transformers", reason="needs langchain-community", exc_type=ImportError
    )
    from langchain_classic.retrievers.document_compressors import EmbeddingsFilter

    with pytest.raises(BatchError) as caught:
        EmbeddingsFilter(embeddings=embeddings).compress_documents(documents, "a")
    assert "Qwen3VLEmbeddingsFilter" in " ".join(caught.value.__notes__)
    captioned = [document.model_copy(update={"page_content": "a caption"}) for document in documents[1:]]
    own_embeddings = embeddings.model_copy()
    caplog.clear()
    community.EmbeddingsRedundantFilter(embeddings=own_embeddings).transform_documents(captioned)
    assert "Qwen3VLEmbeddingsFilter" in caplog.text

"""`add_documents` stores text and media under one vector, in vector stores that know nothing of media."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_qdrant import QdrantVectorStore, RetrievalMode, SparseEmbeddings, SparseVector
from langchain_qwen3_vl import (
    Qwen3VLEmbeddings,
    Qwen3VLVectorStore,
    aadd_documents,
    add_documents,
    from_langchain,
)
from langchain_qwen3_vl.precomputed import PrecomputedText
from qdrant_client import QdrantClient, models

from qwen3vl import Document as CoreDocument
from qwen3vl import Embedder, Loader, RecipeError, StoreError
from tests.support.engines import assert_close, await_while_busy
from tests.support.langchain_stores import close_vector_store, open_vector_store, source_name
from tests.support.sample_library import STAR


async def test_adding_documents_again_replaces_them(store: VectorStore, library: list[Document]) -> None:
    ids = await aadd_documents(store, iter(library), batch_size=5)

    async def stream() -> AsyncIterator[Document]:
        for document in library:
            yield document

    assert ids == add_documents(store, library) == await aadd_documents(store, stream(), batch_size=30)
    assert len(set(ids)) == len(library)
    hits = await store.asimilarity_search(STAR.caption(), k=60)
    assert len(hits) == len(library)
    assert source_name(hits[0]) == "star.png"


def test_stored_vectors_and_documents_equal_those_of_the_core(
    store: VectorStore, library: list[Document], tiny_embedder: Embedder
) -> None:
    ids = add_documents(store, library)
    expected = tiny_embedder.embed([from_langchain(document).input for document in library])
    if isinstance(store, InMemoryVectorStore):
        stored = [store.store[document_id]["vector"] for document_id in ids]
        assert_close(stored, expected)
    for document, vector in list(zip(library, expected, strict=True))[::5]:
        (hit,) = store.similarity_search_by_vector(vector.tolist(), k=1)
        assert hit.page_content == document.page_content
        metadata = {key: value for key, value in hit.metadata.items() if key not in ("_id", "_collection_name")}
        assert metadata == document.metadata


@pytest.mark.parametrize("kind", ["qdrant", "chroma"])
def test_reopened_store_finds_the_documents(
    kind: str, embeddings: Qwen3VLEmbeddings, library: list[Document], tmp_path: Path
) -> None:
    store = open_vector_store(kind, embeddings, tmp_path)
    add_documents(store, library)
    close_vector_store(store)
    reopened = open_vector_store(kind, embeddings, tmp_path)
    (hit,) = reopened.similarity_search(STAR.caption(), k=1)
    assert source_name(hit) == "star.png"
    close_vector_store(reopened)


def test_core_documents_and_own_ids_are_accepted(store: VectorStore, library_folder: Path) -> None:
    own_id = "5b7c0d0c-5ad5-4f5b-8b0e-0a8f1f0f3c11"
    core_documents = [
        document for document in Loader().load([library_folder / "star.png"]) if isinstance(document, CoreDocument)
    ]
    ids = add_documents(store, [*core_documents, Document("a green circle", id=own_id, metadata={"by": "Ann"})])
    assert ids == [core_documents[0].id, own_id]
    (hit,) = store.similarity_search("a green circle", k=1)
    assert hit.metadata["by"] == "Ann"


def test_documents_that_differ_only_in_metadata_are_kept_apart(store: VectorStore) -> None:
    documents = [Document("terms", metadata={"tenant": tenant, "page": page}) for tenant in "ab" for page in (3, 7)]
    assert len(set(add_documents(store, documents))) == 4
    hits = store.similarity_search("terms", k=9)
    assert {(hit.metadata["tenant"], hit.metadata["page"]) for hit in hits} == {
        (tenant, page) for tenant in "ab" for page in (3, 7)
    }


def test_stored_text_does_not_keep_its_vector(embeddings: Qwen3VLEmbeddings) -> None:
    store = InMemoryVectorStore(embeddings)
    (document_id,) = add_documents(store, [Document("dummy_text")])
    text = store.store[document_id]["text"]
    assert isinstance(text, PrecomputedText)
    assert text.vector is None
    short = Qwen3VLEmbeddings(model="tiny", dimensions=16)
    assert len(short.embed_documents([text])[0]) == 16


def test_precomputed_text_that_is_passed_twice_has_its_vector_twice(embeddings: Qwen3VLEmbeddings) -> None:
    text, same_text = PrecomputedText("a red star", [0.0, 1.0]), PrecomputedText("a red star", [1.0, 0.0])
    assert embeddings.embed_documents([text, same_text, text]) == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    assert text.vector is None


def test_copies_and_pickles_of_precomputed_text_are_plain_texts() -> None:
    text = PrecomputedText("a red star", [0.0, 1.0])
    for plain in (copy.copy(text), copy.deepcopy(text), pickle.loads(pickle.dumps(text))):
        assert type(plain) is str
        assert plain == "a red star"


def test_store_error_has_a_note_of_what_was_written(embeddings: Qwen3VLEmbeddings) -> None:
    class FailingStore(InMemoryVectorStore):
        def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
            if self.store:
                raise ConnectionError("connection lost")
            return super().add_documents(documents, ids, **kwargs)

    store = FailingStore(embeddings)
    with pytest.raises(ConnectionError) as caught:
        add_documents(store, [Document("a"), Document(""), Document("b"), Document("c")], batch_size=2)
    notes = " ".join(caught.value.__notes__)
    assert "ends with item 3" in notes
    assert "item 1" in notes
    assert len(store.store) == 1


def test_embeddings_argument_serves_stores_without_embeddings(embeddings: Qwen3VLEmbeddings) -> None:
    class StoreWithoutEmbeddings(InMemoryVectorStore):
        @property
        def embeddings(self) -> Any:
            return None

    assert len(add_documents(StoreWithoutEmbeddings(embeddings), [Document("a")], embeddings)) == 1
    with pytest.raises(StoreError, match="NoneType"):
        add_documents(StoreWithoutEmbeddings(embeddings), [Document("a")])


def test_store_with_other_embeddings_is_a_store_error(embeddings: Qwen3VLEmbeddings, library: list[Document]) -> None:
    with pytest.raises(StoreError, match="DeterministicFakeEmbedding, which embeds only texts"):
        add_documents(InMemoryVectorStore(DeterministicFakeEmbedding(size=6)), library)
    fake = DeterministicFakeEmbedding(size=6)
    cached = CacheBackedEmbeddings.from_bytes_store(fake, InMemoryByteStore(), key_encoder="sha256")
    with pytest.raises(StoreError, match="CacheBackedEmbeddings"):
        add_documents(InMemoryVectorStore(cached), library)
    with pytest.raises(RecipeError, match="dimensions"):
        add_documents(InMemoryVectorStore(embeddings), library, Qwen3VLEmbeddings(model="tiny", dimensions=8))


class WordCounts(SparseEmbeddings):
    """Sparse vectors without a model."""

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> SparseVector:
        return SparseVector(indices=[0, len(text) + 1], values=[1.0, 1.0])


@pytest.mark.engine
async def test_awaits_share_forward_passes(embeddings: Qwen3VLEmbeddings, checkpoints: Path) -> None:
    class MediaStore(Qwen3VLVectorStore, InMemoryVectorStore):
        pass

    documents = [Document(f"text number {number}", id=str(number)) for number in range(30)]
    store = InMemoryVectorStore(embeddings)
    calls: list[Any] = [aadd_documents(store, [document]) for document in documents[:20]]
    calls += [MediaStore.afrom_documents([document], embeddings) for document in documents[20:]]
    results, num_passes = await await_while_busy(checkpoints / "embedding", embeddings.embedder.engine, calls, 30)
    assert num_passes < 5
    assert results[:20] == [[str(number)] for number in range(20)]
    stored = {**store.store, **{key: value for other in results[20:] for key, value in other.store.items()}}
    vectors = [stored[document.id]["vector"] for document in documents]
    assert_close(vectors, embeddings.embed_documents([document.page_content for document in documents]))


async def test_sparse_store_is_refused_before_anything_is_written(
    embeddings: Qwen3VLEmbeddings, library: list[Document]
) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("sparse", sparse_vectors_config={"words": models.SparseVectorParams()})
    store = QdrantVectorStore(
        client,
        "sparse",
        embeddings,
        retrieval_mode=RetrievalMode.SPARSE,
        sparse_embedding=WordCounts(),
        sparse_vector_name="words",
    )
    with pytest.raises(StoreError, match=r"sparse mode.*nothing was added.*DENSE or HYBRID"):
        add_documents(store, library)
    with pytest.raises(StoreError, match="sparse mode"):
        await aadd_documents(store, library)
    assert client.count("sparse").count == 0


class MediaQdrant(Qwen3VLVectorStore, QdrantVectorStore):  # type: ignore[misc]
    pass


async def test_sparse_store_is_refused_before_it_is_created_of_documents(
    embeddings: Qwen3VLEmbeddings, library: list[Document], tmp_path: Path
) -> None:
    arguments: dict[str, Any] = {
        "path": str(tmp_path),
        "retrieval_mode": RetrievalMode.SPARSE,
        "sparse_embedding": WordCounts(),
    }
    with pytest.raises(StoreError, match=r"sparse mode.*nothing was added"):
        MediaQdrant.from_documents(library, embeddings, **arguments)
    with pytest.raises(StoreError, match="sparse mode"):
        await MediaQdrant.afrom_documents(library, embeddings, **arguments)
    assert not list(tmp_path.iterdir())


def test_hybrid_store_takes_the_vectors(embeddings: Qwen3VLEmbeddings, library: list[Document]) -> None:
    client = QdrantClient(":memory:")
    size = embeddings.embedder.dimension
    client.create_collection(
        "hybrid",
        {"": models.VectorParams(size=size, distance=models.Distance.COSINE)},
        sparse_vectors_config={"words": models.SparseVectorParams()},
    )
    store = QdrantVectorStore(
        client,
        "hybrid",
        embeddings,
        retrieval_mode=RetrievalMode.HYBRID,
        sparse_embedding=WordCounts(),
        sparse_vector_name="words",
    )
    assert len(add_documents(store, library)) == client.count("hybrid").count == len(library)


def test_store_that_changes_texts_is_a_store_error(embeddings: Qwen3VLEmbeddings, library: list[Document]) -> None:
    class StrippingStore(InMemoryVectorStore):
        def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
            stripped = [
                Document(document.page_content.strip() or "?", metadata=document.metadata) for document in documents
            ]
            return super().add_documents(stripped, ids, **kwargs)

    with pytest.raises(StoreError, match="StrippingStore did not pass 37 of 37 texts unchanged") as caught:
        add_documents(StrippingStore(embeddings), library)
    assert str(library[0].id) in str(caught.value)


async def test_batch_size_below_one_is_a_value_error(embeddings: Qwen3VLEmbeddings, library: list[Document]) -> None:
    async def stream() -> AsyncIterator[Document]:
        yield library[0]

    with pytest.raises(ValueError, match="batch_size"):
        add_documents(InMemoryVectorStore(embeddings), library, batch_size=0)
    with pytest.raises(ValueError, match="batch_size"):
        await aadd_documents(InMemoryVectorStore(embeddings), stream(), batch_size=0)

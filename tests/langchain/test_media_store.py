"""`Qwen3VLVectorStore` makes the methods of LangChain's stores right for documents with media."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, aindex, index
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLVectorStore, add_documents, from_langchain
from qdrant_client import QdrantClient, models

from qwen3vl import BatchError, Embedder, StoreError
from tests.support.langchain_stores import close_vector_store

IDS = [f"5b7c0d0c-5ad5-4f5b-8b0e-0a8f1f0f3c1{number}" for number in range(4)]


class MediaMemory(Qwen3VLVectorStore, InMemoryVectorStore):
    pass


class MediaChroma(Qwen3VLVectorStore, Chroma):  # type: ignore[misc]
    pass


class MediaQdrant(Qwen3VLVectorStore, QdrantVectorStore):  # type: ignore[misc]
    pass


def open_media_store(kind: str, embeddings: Any, folder: Path) -> VectorStore:
    if kind == "memory":
        return MediaMemory(embeddings)
    if kind == "chroma":
        return MediaChroma("documents", embeddings, persist_directory=str(folder))
    if kind == "qdrant":
        client = QdrantClient(path=str(folder))
        params = models.VectorParams(size=len(embeddings.embed_query("size")), distance=models.Distance.COSINE)
        client.create_collection("documents", params)
        return MediaQdrant(client, "documents", embeddings)
    community = pytest.importorskip(
        "langchain_community.vectorstores.faiss", reason="FAISS needs langchain-community", exc_type=ImportError
    )
    faiss = pytest.importorskip("faiss", reason="FAISS needs faiss-cpu", exc_type=ImportError)
    media_faiss = type("MediaFAISS", (Qwen3VLVectorStore, community.FAISS), {})
    docstore = community.InMemoryDocstore()
    store: VectorStore = media_faiss(embeddings, faiss.IndexFlatL2(len(embeddings.embed_query("size"))), docstore, {})
    return store


KINDS = ["memory", "chroma", "qdrant", "faiss"]


@pytest.fixture(params=KINDS)
def media_store(request: pytest.FixtureRequest, embeddings: Qwen3VLEmbeddings, tmp_path: Path) -> Iterator[VectorStore]:
    store = open_media_store(request.param, embeddings, tmp_path)
    yield store
    close_vector_store(store)


@pytest.fixture
def documents(library_folder: Path) -> list[Document]:
    """A captioned image, a bare image, a bare video and a text."""
    return [
        Document("a caption that says nothing", metadata={"image": str(library_folder / "star.png"), "source": "0"}),
        Document("", metadata={"image": str(library_folder / "0.png"), "source": "1"}),
        Document("", metadata={"video": str(library_folder / "mover.mp4"), "source": "2"}),
        Document("a green circle", metadata={"source": "3"}),
    ]


def assert_vectors(store: VectorStore, documents: list[Document], embedder: Embedder) -> None:
    """Check that each document is stored under the vector of its text and media, and nothing else is."""
    vectors = embedder.embed([from_langchain(document).input for document in documents])
    for document, vector in zip(documents, vectors, strict=True):
        (hit,) = store.similarity_search_by_vector(vector.tolist(), k=1)
        assert (hit.metadata["source"], hit.page_content) == (document.metadata["source"], document.page_content)
    query = {"image": documents[0].metadata["image"], "text": documents[0].page_content}
    ((hit, score),) = store.similarity_search_with_score(query, k=1)
    assert hit.metadata["source"] == "0"
    # Cosine similarity, or Chroma's and FAISS's squared distance: exactly the query's vector is stored.
    assert min(abs(score - 1), abs(score)) < 1e-5
    assert len(store.similarity_search("a", k=50)) == len(documents)


def test_add_documents(media_store: VectorStore, documents: list[Document], tiny_embedder: Embedder) -> None:
    ids = media_store.add_documents(documents[:2])
    ids += media_store.add_documents(documents[2:], ids=IDS[2:])
    assert ids[2:] == IDS[2:]
    assert_vectors(media_store, documents, tiny_embedder)


async def test_aadd_documents(media_store: VectorStore, documents: list[Document], tiny_embedder: Embedder) -> None:
    assert await media_store.aadd_documents(documents, ids=IDS) == IDS
    assert_vectors(media_store, documents, tiny_embedder)


async def test_documents_may_come_from_a_generator(
    embeddings: Qwen3VLEmbeddings, documents: list[Document], tiny_embedder: Embedder, tmp_path: Path
) -> None:
    """As `loader.lazy_load()` returns them, whatever the annotation of LangChain's methods says."""
    arguments: dict[str, Any] = {"ids": IDS}
    store = MediaMemory(embeddings)
    assert store.add_documents(document for document in documents) != []  # type: ignore[arg-type]
    assert_vectors(store, documents, tiny_embedder)
    store = MediaMemory(embeddings)
    assert await store.aadd_documents(iter(documents), **arguments) == IDS  # type: ignore[arg-type]
    assert_vectors(store, documents, tiny_embedder)
    assert_vectors(MediaMemory.from_documents(iter(documents), embeddings, **arguments), documents, tiny_embedder)  # type: ignore[arg-type]
    chroma = MediaChroma("documents", embeddings, persist_directory=str(tmp_path))
    chroma.add_documents([Document("old", metadata={"source": number}) for number in "0123"], ids=IDS)
    chroma.update_documents(IDS, iter(documents))  # type: ignore[arg-type]
    assert_vectors(chroma, documents, tiny_embedder)
    close_vector_store(chroma)


def test_function_add_documents(media_store: VectorStore, documents: list[Document], tiny_embedder: Embedder) -> None:
    add_documents(media_store, documents, batch_size=3)
    assert_vectors(media_store, documents, tiny_embedder)


async def test_same_documents_twice(
    media_store: VectorStore, documents: list[Document], tiny_embedder: Embedder
) -> None:
    """In calls of their own, in several batches of one call, and under ids that have other documents."""
    ids = media_store.add_documents(documents)
    assert add_documents(media_store, [*documents, *documents], batch_size=3) == ids + ids
    assert await media_store.aadd_documents(documents[1:]) == ids[1:]
    media_store.add_texts(["old"], [{"source": "0"}], ids=ids[:1])
    assert media_store.add_documents(documents[:1], ids=ids[:1]) == ids[:1]
    assert_vectors(media_store, documents, tiny_embedder)


@pytest.mark.parametrize("kind", KINDS)
def test_same_documents_twice_where_embeddings_are_cached(
    kind: str, embeddings: Qwen3VLEmbeddings, documents: list[Document], tiny_embedder: Embedder, tmp_path: Path
) -> None:
    cached = CacheBackedEmbeddings.from_bytes_store(embeddings, InMemoryByteStore(), key_encoder="sha256")
    store = open_media_store(kind, cached, tmp_path)
    ids = add_documents(store, documents)
    assert add_documents(store, [*reversed(documents), *documents], batch_size=3) == [*reversed(ids), *ids]
    assert_vectors(store, documents, tiny_embedder)
    close_vector_store(store)


async def test_add_texts_with_metadatas(
    media_store: VectorStore, documents: list[Document], tiny_embedder: Embedder
) -> None:
    def columns(part: list[Document]) -> tuple[list[str], list[dict[str, Any]]]:
        return [document.page_content for document in part], [document.metadata for document in part]

    assert media_store.add_texts(*columns(documents[:2]), ids=IDS[:2]) == IDS[:2]
    assert await media_store.aadd_texts(*columns(documents[2:]), ids=IDS[2:]) == IDS[2:]
    assert_vectors(media_store, documents, tiny_embedder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True], ids=["from_documents", "afrom_documents"])
def test_from_documents(
    kind: str,
    is_async: bool,
    embeddings: Qwen3VLEmbeddings,
    documents: list[Document],
    tiny_embedder: Embedder,
    tmp_path: Path,
) -> None:
    arguments: dict[str, dict[str, Any]] = {
        "chroma": {"persist_directory": str(tmp_path / "new")},
        "qdrant": {"location": ":memory:"},
    }
    media_class = type(open_media_store(kind, embeddings, tmp_path))
    if is_async:
        store = asyncio.run(media_class.afrom_documents(documents, embeddings, **arguments.get(kind, {})))
    else:
        store = media_class.from_documents(documents, embeddings, **arguments.get(kind, {}))
    assert type(store) is media_class
    assert_vectors(store, documents, tiny_embedder)
    close_vector_store(store)


@pytest.mark.parametrize("kind", ["memory", "chroma", "qdrant"])
async def test_index_adds_skips_and_deletes(
    kind: str, embeddings: Qwen3VLEmbeddings, documents: list[Document], tiny_embedder: Embedder, tmp_path: Path
) -> None:
    store = open_media_store(kind, embeddings, tmp_path)
    records = InMemoryRecordManager("test")
    records.create_schema()
    options: dict[str, Any] = {"cleanup": "full"}
    gone = Document("gone", metadata={"source": "gone"})
    assert index([*documents, gone], records, store, **options)["num_added"] == 5
    result = index(documents, records, store, **options)
    assert (result["num_skipped"], result["num_deleted"]) == (4, 1)
    assert_vectors(store, documents, tiny_embedder)
    result = await aindex(documents, records, store, force_update=True, **options)
    assert result["num_updated"] == 4
    assert_vectors(store, documents, tiny_embedder)
    close_vector_store(store)


def test_update_document_of_chroma(
    embeddings: Qwen3VLEmbeddings, documents: list[Document], tiny_embedder: Embedder, tmp_path: Path
) -> None:
    store = MediaChroma("documents", embeddings, persist_directory=str(tmp_path))
    store.add_documents([Document("old", metadata={"source": number}) for number in "0123"], ids=IDS)
    store.update_document(IDS[0], documents[0])
    store.update_documents(IDS[1:], documents[1:])
    assert_vectors(store, documents, tiny_embedder)
    close_vector_store(store)


def test_update_documents_where_the_store_has_none_names_add_documents(embeddings: Qwen3VLEmbeddings) -> None:
    assert not hasattr(MediaMemory, "update_document")
    with pytest.raises(NotImplementedError, match="add_documents"):
        MediaMemory(embeddings).update_documents(["1"], [Document("a")])


def test_failed_documents_do_not_stop_the_others(
    media_store: VectorStore, documents: list[Document], tiny_embedder: Embedder, library_folder: Path
) -> None:
    missing = Document("", metadata={"image": str(library_folder / "missing.png")})
    with pytest.raises(BatchError, match=r"missing\.png") as caught:
        media_store.add_documents([*documents[:1], missing, *documents[1:]])
    assert [document_id is None for document_id in caught.value.results] == [False, True, False, False, False]
    assert_vectors(media_store, documents, tiny_embedder)


@pytest.fixture
def broken(library_folder: Path) -> Document:
    """An image that cannot be opened."""
    return Document("", metadata={"image": str(library_folder / "broken.png"), "source": "broken"})


async def test_index_goes_on_where_broken_documents_are_skipped(
    media_store: Any,
    documents: list[Document],
    broken: Document,
    tiny_embedder: Embedder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = InMemoryRecordManager("test")
    records.create_schema()
    options: dict[str, Any] = {"cleanup": None, "batch_size": 1, "key_encoder": uuid_of}
    library = [*documents[:2], broken, *documents[2:]]
    for _ in range(2):
        with pytest.raises(BatchError, match="broken"):
            index(library, records, media_store, **options)
    assert len(media_store.similarity_search("a", k=9)) == 2
    media_store.on_error = "skip"
    assert index(library, records, media_store, **options)["num_added"] == 3
    assert_vectors(media_store, documents, tiny_embedder)
    assert [record.levelname for record in caplog.records if "broken.png" in record.getMessage()] == ["WARNING"]
    assert await media_store.aadd_documents([documents[0], broken], ids=IDS[:2]) == IDS[:1]
    assert media_store.add_texts(["", "a text"], [broken.metadata, {}], ids=IDS[:2]) == IDS[1:2]


def uuid_of(document: Document) -> str:
    return str(uuid5(NAMESPACE_OID, f"{document.page_content} {document.metadata}"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_creating_a_store_of_broken_documents(
    kind: str,
    on_error: str,
    embeddings: Qwen3VLEmbeddings,
    documents: list[Document],
    broken: Document,
    tiny_embedder: Embedder,
    tmp_path: Path,
) -> None:
    """A store of which there is no document is not created, because FAISS needs one."""
    opened = open_media_store(kind, embeddings, tmp_path)
    close_vector_store(opened)
    media_class: Any = type("MediaStore", (type(opened),), {"on_error": on_error})
    with pytest.raises(BatchError, match=r"2 of 2 .*broken\.png"):
        media_class.from_documents([broken, broken], embeddings)
    with pytest.raises(BatchError, match=r"2 of 2 .*broken\.png"):
        await media_class.afrom_documents([broken, broken], embeddings)
    arguments: dict[str, Any] = {"location": ":memory:"} if kind == "qdrant" else {}
    if on_error == "raise":
        with pytest.raises(BatchError, match=r"1 of 5 .*broken\.png"):
            media_class.from_documents([broken, *documents], embeddings, **arguments)
    else:
        store = media_class.from_documents([broken, *documents], embeddings, **arguments)
        assert_vectors(store, documents, tiny_embedder)
        close_vector_store(store)


def test_other_values_of_on_error_are_refused_before_anything_is_written(embeddings: Qwen3VLEmbeddings) -> None:
    store = MediaMemory(embeddings)
    store.on_error = "ignore"  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r'on_error is .ignore.; it must be "raise" or "skip"'):
        store.add_documents([Document("a")])
    assert not store.store
    with pytest.raises(ValueError, match="on_error"):
        type("MediaStore", (MediaMemory,), {"on_error": None}).from_documents([Document("a")], embeddings)  # type: ignore[attr-defined]


def test_wrong_number_of_ids_and_other_embeddings_are_errors(embeddings: Qwen3VLEmbeddings) -> None:
    with pytest.raises(ValueError, match="2 ids for 1 documents"):
        MediaMemory(embeddings).add_documents([Document("a")], ids=["1", "2"])
    with pytest.raises(StoreError, match="DeterministicFakeEmbedding"):
        MediaMemory(DeterministicFakeEmbedding(size=6)).add_documents([Document("a")])
    with pytest.raises(StoreError, match="DeterministicFakeEmbedding"):
        MediaMemory.from_documents([Document("a")], DeterministicFakeEmbedding(size=6))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["add_documents", "from_documents"])
def test_cache_of_texts_gets_no_vectors_of_media(
    kind: str,
    method: str,
    embeddings: Qwen3VLEmbeddings,
    documents: list[Document],
    tiny_embedder: Embedder,
    tmp_path: Path,
) -> None:
    cache = InMemoryByteStore()
    cached = CacheBackedEmbeddings.from_bytes_store(embeddings, cache, namespace="test", key_encoder="sha256")
    caption = documents[0].page_content
    (vector,) = cached.embed_documents([caption])
    store = open_media_store(kind, cached, tmp_path)
    if method == "add_documents":
        store.add_documents(documents)
    else:
        arguments: dict[str, Any] = {"location": ":memory:"} if kind == "qdrant" else {}
        arguments = {"persist_directory": str(tmp_path / "new")} if kind == "chroma" else arguments
        close_vector_store(store)
        store = type(store).from_documents(documents, cached, **arguments)
    assert store.embeddings is cached
    assert_vectors(store, documents, tiny_embedder)
    assert cached.embed_documents([caption]) == [vector]
    assert np.allclose(vector, tiny_embedder.embed(caption)[0])
    close_vector_store(store)

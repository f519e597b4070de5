"""Stores and filters that pass only the texts of documents with media are named in a warning, once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_qwen3_vl import MediaKeys, Qwen3VLEmbeddings, add_documents

from qwen3vl import MediaPolicy
from tests.support.langchain_stores import close_vector_store, open_vector_store


@pytest.fixture
def own_embeddings(policy: MediaPolicy) -> Qwen3VLEmbeddings:
    """Embeddings that have not warned yet."""
    return Qwen3VLEmbeddings(model="tiny", device="cpu", policy=policy)


@pytest.fixture
def captioned(library_folder: Path) -> list[Document]:
    image = str(library_folder / "star.png")
    return [Document("a star", metadata={"image": image, "source": "s"}), Document("a text", metadata={"source": "t"})]


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def run_index(store: VectorStore, documents: list[Document]) -> None:
    records = InMemoryRecordManager("test")
    records.create_schema()
    index(documents, records, store)


METHODS: dict[str, Callable[[VectorStore, list[Document]], Any]] = {
    "add_documents": lambda store, documents: store.add_documents(documents),
    "add_texts": lambda store, documents: store.add_texts(
        [document.page_content for document in documents], [document.metadata for document in documents]
    ),
    "index": run_index,
}


@pytest.mark.parametrize("kind", ["qdrant", "chroma", "memory"])
@pytest.mark.parametrize("method", METHODS)
def test_methods_of_stores_warn_once(
    method: str,
    kind: str,
    own_embeddings: Qwen3VLEmbeddings,
    captioned: list[Document],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = open_vector_store(kind, own_embeddings, tmp_path)
    METHODS[method](store, captioned)
    METHODS[method](store, captioned)
    (message,) = warnings_of(caplog)
    assert message.startswith(f"{type(store).__name__}.add_")
    assert "1 documents that have images or videos" in message
    assert "langchain_qwen3_vl.add_documents(store, documents)" in message
    assert "Qwen3VLVectorStore" in message
    close_vector_store(store)


def test_from_documents_and_update_document_are_named(
    policy: MediaPolicy, captioned: list[Document], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny", policy=policy)
    store = Chroma.from_documents(captioned, embeddings, ids=["1", "2"], persist_directory=str(tmp_path))
    assert [message.split()[0] for message in warnings_of(caplog)] == ["Chroma.from_documents"]
    reopened = Chroma(
        embedding_function=Qwen3VLEmbeddings(model="tiny", policy=policy), persist_directory=str(tmp_path)
    )
    caplog.clear()
    reopened.update_document("1", captioned[0])
    assert [message.split()[0] for message in warnings_of(caplog)] == ["Chroma.update_document"]
    close_vector_store(store)


async def test_asynchronous_methods_warn(
    policy: MediaPolicy, captioned: list[Document], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind in ("qdrant", "chroma", "memory"):
        store = open_vector_store(kind, Qwen3VLEmbeddings(model="tiny", policy=policy), tmp_path / kind)
        caplog.clear()
        await store.aadd_documents(captioned)
        assert len(warnings_of(caplog)) == 1
        close_vector_store(store)


def test_keys_of_ones_own_are_looked_up(
    library_folder: Path, policy: MediaPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings = Qwen3VLEmbeddings(model="tiny", policy=policy, media_keys=MediaKeys(image=["photo"]))
    InMemoryVectorStore(embeddings).add_documents([Document("a star", metadata={"image": "not one of the keys"})])
    assert not warnings_of(caplog)
    InMemoryVectorStore(embeddings).add_documents([Document("a star", metadata={"photo": "star.png"})])
    assert len(warnings_of(caplog)) == 1


async def test_nothing_is_warned_of_where_nothing_is_left_out(
    own_embeddings: Qwen3VLEmbeddings, captioned: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    store = InMemoryVectorStore(own_embeddings)
    add_documents(store, captioned)
    store.add_documents(captioned[1:])
    await store.aadd_documents(captioned[1:])
    documents = captioned  # a variable of a caller that embeds something else
    own_embeddings.embed_documents(["another text"])
    own_embeddings.embed_documents(documents)
    store.similarity_search("a star")
    assert not warnings_of(caplog)

"""`Qwen3VLSplitter` splits texts and keeps documents with media, also in a `ParentDocumentRetriever`."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from langchain_chroma import Chroma
from langchain_classic.retrievers import ParentDocumentRetriever
from langchain_core.documents import Document
from langchain_core.stores import InMemoryStore
from langchain_qwen3_vl import MediaKeys, Qwen3VLEmbeddings, Qwen3VLSplitter, Qwen3VLVectorStore
from langchain_text_splitters import MarkdownTextSplitter, RecursiveCharacterTextSplitter

from tests.support.langchain_stores import close_vector_store

TEXT = "A green circle is on the left. " * 4 + "A blue square is on the right. " * 4


class MediaChroma(Qwen3VLVectorStore, Chroma):  # type: ignore[misc]
    pass


@pytest.fixture
def splitter() -> Qwen3VLSplitter:
    return Qwen3VLSplitter(RecursiveCharacterTextSplitter(chunk_size=70, chunk_overlap=0, add_start_index=True))


@pytest.fixture
def documents(library_folder: Path) -> list[Document]:
    return [
        Document("", id="picture", metadata={"image": str(library_folder / "star.png"), "tags": ["x"]}),
        Document(TEXT, id="text", metadata={"source": "notes.md"}),
        Document(TEXT, id="captioned", metadata={"image": str(library_folder / "0.png")}),
        Document("", id="video", metadata={"video": str(library_folder / "mover.mp4")}),
        Document(base64.b64encode((library_folder / "13.jpg").read_bytes()).decode(), id="encoded"),
    ]


def test_media_are_kept_and_texts_are_split(splitter: Qwen3VLSplitter, documents: list[Document]) -> None:
    chunks = splitter.split_documents(documents)
    expected = splitter.splitter.split_documents([documents[1]])
    assert len(expected) > 2
    assert chunks[1 : 1 + len(expected)] == expected
    assert [chunks[0], *chunks[1 + len(expected) :]] == [documents[0], *documents[2:]]
    assert chunks[0].metadata is not documents[0].metadata
    assert chunks[0].metadata["tags"] is not documents[0].metadata["tags"]
    assert list(splitter.transform_documents(documents)) == chunks
    assert asyncio.run(splitter.atransform_documents(documents)) == chunks
    assert splitter.split_text(TEXT) == splitter.splitter.split_text(TEXT)
    texts = [document.page_content for document in documents]
    created = splitter.create_documents(texts, [document.metadata for document in documents])
    assert [chunk.page_content for chunk in created] == [chunk.page_content for chunk in chunks]


def test_keys_of_ones_own_name_media() -> None:
    document = Document("", metadata={"photo": "star.png"})
    splitter = Qwen3VLSplitter(MarkdownTextSplitter(), media_keys=MediaKeys(image=["photo"]))
    assert splitter.split_documents([document]) == [document]
    assert Qwen3VLSplitter(MarkdownTextSplitter()).split_documents([document]) == []


@pytest.mark.parametrize("is_async", [False, True], ids=["add_documents", "aadd_documents"])
def test_parent_document_retriever_finds_images_and_texts(
    is_async: bool, splitter: Qwen3VLSplitter, documents: list[Document], embeddings: Qwen3VLEmbeddings, tmp_path: Path
) -> None:
    store = MediaChroma("children", embeddings, persist_directory=str(tmp_path))
    docstore: Any = InMemoryStore()
    retriever = ParentDocumentRetriever(
        vectorstore=store,
        docstore=docstore,
        child_splitter=splitter,
        parent_splitter=Qwen3VLSplitter(RecursiveCharacterTextSplitter(chunk_size=150, chunk_overlap=0)),
        search_kwargs={"k": 1},
    )
    if is_async:
        asyncio.run(retriever.aadd_documents(documents))
    else:
        retriever.add_documents(documents)
    children = store.get()
    assert {metadata["doc_id"] for metadata in children["metadatas"]} == set(docstore.yield_keys())
    (picture,) = retriever.invoke({"image": documents[0].metadata["image"]})  # type: ignore[arg-type]
    assert picture == documents[0]
    (video,) = retriever.invoke({"video": documents[3].metadata["video"]})  # type: ignore[arg-type]
    assert video == documents[3]
    (encoded,) = retriever.invoke(documents[4])  # type: ignore[arg-type]
    assert encoded == documents[4]
    (text,) = retriever.invoke("A blue square is on the right.")
    assert text.metadata == {"source": "notes.md"}
    assert 70 < len(text.page_content) <= 150
    close_vector_store(store)

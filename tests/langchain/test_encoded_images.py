"""A text that is the base64 of an image, as `Chroma.add_images` writes it, is that image everywhere."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_vl import (
    Qwen3VLEmbeddings,
    Qwen3VLReranker,
    add_documents,
    content_blocks,
    describe_document,
    from_langchain,
)
from PIL import Image
from qwen3vl_chroma import ChromaStore

from qwen3vl import Embedder, MediaPolicy, Reranker, Retriever, ingest
from qwen3vl.adapters.encoded_images import image_data_uri
from tests.support.engines import assert_close
from tests.support.langchain_stores import close_vector_store
from tests.support.sample_library import STAR

IMAGES = ("star.png", "0.png", "13.jpg")
NO_FILES = MediaPolicy(urls=False, folders=())


@pytest.fixture
def chroma(embeddings: Qwen3VLEmbeddings, library_folder: Path, tmp_path: Path) -> Iterator[Chroma]:
    """A store whose images LangChain has written."""
    store = Chroma("images", embeddings, persist_directory=str(tmp_path))
    paths = [str(library_folder / name) for name in IMAGES]
    store.add_images(paths, metadatas=[{"name": name} for name in IMAGES], ids=list(IMAGES))
    yield store
    close_vector_store(store)


@pytest.fixture
def stored(chroma: Chroma) -> list[Document]:
    documents = chroma.get_by_ids(list(IMAGES))
    return sorted(documents, key=lambda document: IMAGES.index(document.metadata["name"]))


def test_reranker_scores_the_image(stored: list[Document], library_folder: Path, tiny_reranker: Reranker) -> None:
    expected = tiny_reranker.score(STAR.caption(), [{"image": str(library_folder / name)} for name in IMAGES])
    reranker = Qwen3VLReranker(model="tiny", policy=NO_FILES, top_n=None)
    scores = {
        document.metadata["name"]: document.metadata["relevance_score"]
        for document in reranker.compress_documents(stored, STAR.caption())
    }
    assert_close([scores[name] for name in IMAGES], expected)
    # Code that passes only the texts of documents, too.
    results = reranker.rerank(STAR.caption(), [document.page_content for document in stored])
    assert results[0]["index"] == IMAGES.index("star.png")


def test_content_blocks_show_the_image(stored: list[Document]) -> None:
    blocks = content_blocks(stored, policy=NO_FILES)
    assert [block["type"] for block in blocks] == ["image"] * len(IMAGES)
    original = Image.open(BytesIO(base64.b64decode(stored[0].page_content)))
    assert Image.open(BytesIO(base64.b64decode(blocks[0]["base64"]))).size == original.size


def test_stores_embed_the_image(
    stored: list[Document], library_folder: Path, tiny_embedder: Embedder, caplog: pytest.LogCaptureFixture
) -> None:
    expected = tiny_embedder.embed([{"image": str(library_folder / name)} for name in IMAGES]).tolist()
    embeddings = Qwen3VLEmbeddings(model="tiny", policy=NO_FILES)
    store = InMemoryVectorStore(embeddings)
    ids = add_documents(store, stored)
    assert_close([store.store[document_id]["vector"] for document_id in ids], expected)
    assert [store.store[document_id]["text"] for document_id in ids] == [document.page_content for document in stored]
    copied = InMemoryVectorStore(embeddings)
    ids = copied.add_documents(stored)  # the store's own method passes only texts
    assert_close([copied.store[document_id]["vector"] for document_id in ids], expected)
    assert not caplog.records


def test_retriever_takes_the_stored_document_as_query(chroma: Chroma, stored: list[Document]) -> None:
    retriever: Any = chroma.as_retriever(search_kwargs={"k": 1})
    for document in stored:
        assert retriever.invoke(document)[0].id == document.id
        assert retriever.invoke(document.page_content)[0].id == document.id


def test_ingested_document_is_found_and_reranked_as_an_image(
    stored: list[Document], tiny_embedder: Embedder, tiny_reranker: Reranker, tmp_path: Path
) -> None:
    import chromadb

    store = ChromaStore(chromadb.PersistentClient(str(tmp_path / "collection")))
    ingest([from_langchain(document) for document in stored], tiny_embedder, store)
    hit = Retriever(tiny_embedder, store, tiny_reranker).search(STAR.caption(), 1)[0]
    assert hit.document.metadata["name"] == "star.png"
    assert hit.document.kind == "picture"
    assert hit.rerank_score is not None
    assert hit.rerank_score > 0.5


def test_image_in_the_text_wins_over_a_reference(stored: list[Document]) -> None:
    """`add_images(uris, metadatas=[{"image": uri}])` names the same image twice; its file may be out of reach."""
    document = stored[0].model_copy(update={"metadata": {"image": "/nowhere/star.png", "source": "star.png"}})
    converted = from_langchain(document)
    assert converted.text == ""
    assert converted.image is not None
    assert converted.image.startswith("data:image/png;base64,")
    assert describe_document(document) == "[image: star.png]"


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_every_format_that_can_be_opened_is_recognised(format_name: str, embeddings: Qwen3VLEmbeddings) -> None:
    for size in ((4, 4), (96, 64)):
        buffer = BytesIO()
        Image.new("RGB", size, "red").save(buffer, format_name)
        text = base64.b64encode(buffer.getvalue()).decode()
        assert image_data_uri(text) is not None
    assert embeddings.embed_query(text) == embeddings.embed_query({"image": buffer.getvalue()})


@pytest.mark.parametrize(
    "text",
    [
        "a red circle",
        "iVBORw0KGgo",
        "/9j/" + "photos/2024/summer" * 4 + " and more",
        base64.b64encode(b"a text that was encoded, and is no image at all, but long enough").decode(),
        base64.b64encode(b"BMW and Audi build cars, and this sentence begins as a bitmap does").decode(),
        base64.b64encode(b"%PDF-1.7 is no image, whatever it may contain on its pages").decode(),
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(60)).decode() + "!",
        "Qk1X" * 12,
        "x" * 64,
        "",
    ],
)
def test_text_that_only_looks_like_base64_stays_a_text(text: str) -> None:
    assert image_data_uri(text) is None
    assert from_langchain(Document(text)).text == text


def test_broken_image_is_the_error_of_its_document(stored: list[Document]) -> None:
    broken = Document(stored[0].page_content[:400], metadata={"source": "broken"})
    batch = Qwen3VLEmbeddings(model="tiny").collect([broken, stored[0]])
    assert [error.source for error in batch.errors] == ["image in a data URI of 422 characters"]
    assert batch.ok.tolist() == [False, True]

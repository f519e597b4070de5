"""What a user would write: a folder into a store, found by words and pictures, reranked, shown to a chat model."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_chroma import Chroma
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_qwen3_vl import (
    Qwen3VLEmbeddings,
    Qwen3VLLoader,
    Qwen3VLReranker,
    Qwen3VLRetriever,
    aadd_documents,
    add_documents,
    content_blocks,
    from_langchain,
    to_langchain,
)
from PIL import Image
from qdrant_client import QdrantClient, models

from qwen3vl import BatchError, Embedder, InputError, Loader, MediaPolicy, RecipeError, Retriever, StoreError, ingest
from qwen3vl import Document as Core
from qwen3vl import open_store as open_core_store
from tests.support.sample_library import MOVER, SLIDE, STAR


@pytest.fixture(scope="module")
def policy(mixed: Path) -> MediaPolicy:
    return MediaPolicy(folders=(mixed,))


@pytest.fixture(scope="module")
def embeddings(policy: MediaPolicy) -> Qwen3VLEmbeddings:
    return Qwen3VLEmbeddings(model="tiny", device="cpu", policy=policy)


@pytest.fixture(scope="module")
def documents(mixed: Path) -> list[Document]:
    """All that can be read."""
    return [each for each in Qwen3VLLoader(mixed).lazy_load() if "corrupt" not in each.metadata["source"]]


def open_store(kind: str, embeddings: Qwen3VLEmbeddings, folder: Path) -> VectorStore:
    if kind == "memory":
        return InMemoryVectorStore(embeddings)
    if kind == "chroma":
        return Chroma(
            "flow",
            embeddings,
            persist_directory=str(folder),
            collection_configuration={"hnsw": {"space": "cosine"}},
        )
    client = QdrantClient(path=str(folder))
    if not client.collection_exists("flow"):
        size = embeddings.embedder.dimension
        client.create_collection("flow", models.VectorParams(size=size, distance=models.Distance.COSINE))
    return QdrantVectorStore(client, "flow", embeddings)


def close(store: VectorStore) -> None:
    if isinstance(store, QdrantVectorStore):
        store.client.close()
    elif isinstance(store, Chroma):
        store._client.close()  # one folder is one database to it for as long as the process lives


@pytest.fixture(params=["qdrant", "chroma", "memory"])
def store(request: pytest.FixtureRequest, embeddings: Qwen3VLEmbeddings, tmp_path: Path) -> Iterator[VectorStore]:
    opened = open_store(request.param, embeddings, tmp_path)
    yield opened
    close(opened)


class Asking(GenericFakeChatModel):
    """A chat model that keeps what it was shown."""

    shown: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.shown.extend(messages)
        return super()._generate(messages, *args, **kwargs)


def source(document: Document) -> str:
    return Path(document.metadata["source"]).name


def test_the_whole_way(
    store: VectorStore, mixed: Path, policy: MediaPolicy, documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    loader = Qwen3VLLoader(mixed)
    with pytest.raises(BatchError, match=r"1 of 38 .*corrupt") as caught:
        add_documents(store, loader.lazy_load())
    assert [Path(name).name for name in loader.skipped] == ["table.csv"]
    assert len([each for each in caught.value.results if each]) == len(documents) == 37
    # The store's own retriever finds each kind, by words and by pictures.
    retriever = store.as_retriever(search_kwargs={"k": 8})
    assert source(retriever.invoke(STAR.caption())[0]) == "star.png"
    assert source(retriever.invoke({"image": str(mixed / "star.png")})[0]) == "star.png"  # type: ignore[arg-type]
    assert source(retriever.invoke({"video": str(mixed / "mover.mp4")})[0]) == "mover.mp4"  # type: ignore[arg-type]
    assert "mover.mp4" in [source(each) for each in retriever.invoke(MOVER.caption())]
    (note,) = [each for each in retriever.invoke("a cyan square on the left") if source(each) == "notes.md"][:1]
    assert "cyan square" in note.page_content
    # A compressor that looks at what was found.
    compressing = ContextualCompressionRetriever(
        base_compressor=Qwen3VLReranker(model="tiny", policy=policy, top_n=2), base_retriever=retriever
    )
    best = compressing.invoke(SLIDE.caption())
    assert source(best[0]) == "slides.pdf"
    assert best[0].metadata["locator"] == "page=2"
    assert best[0].metadata["relevance_score"] > 0.5
    # A chat model sees the pictures.
    model = Asking(messages=iter([AIMessage("a yellow cross")]))

    def ask(found: list[Document]) -> ChatPromptValue:
        told: list[Any] = [{"type": "text", "text": "What is this?"}, *content_blocks(found, policy=policy)]
        return ChatPromptValue(messages=[HumanMessage(content=told)])

    chain: Runnable[Any, Any] = compressing | RunnableLambda(ask) | model
    assert chain.invoke(SLIDE.caption()).content == "a yellow cross"
    (message,) = model.shown
    picture = next(block for block in message.content if block["type"] == "image")
    assert message.content_blocks
    seen = np.asarray(Image.open(BytesIO(base64.b64decode(picture["base64"]))).convert("RGB"), dtype=float)
    # The page that was found: yellow on white.
    red, green, blue = seen.reshape(-1, 3)[seen.std(axis=2).reshape(-1) > 40].mean(axis=0)
    assert min(red, green) > blue + 60


async def test_awaited_and_again(store: VectorStore, documents: list[Document]) -> None:
    """The same ids a second time: documents are replaced, not doubled."""
    ids = await aadd_documents(store, iter(documents), batch_size=5)

    async def stream() -> AsyncIterator[Document]:
        for document in documents:
            yield document

    assert ids == add_documents(store, documents) == await aadd_documents(store, stream(), batch_size=30)
    assert len(set(ids)) == len(documents)
    found = await store.asimilarity_search(STAR.caption(), k=60)
    assert len(found) == len(documents)
    assert source(found[0]) == "star.png"


def test_vectors_are_the_cores(store: VectorStore, documents: list[Document], tiny_embedder: Embedder) -> None:
    ids = add_documents(store, documents)
    wanted = tiny_embedder.embed([from_langchain(each).input for each in documents])
    if isinstance(store, InMemoryVectorStore):
        stored = [store.store[each]["vector"] for each in ids]
        np.testing.assert_array_equal(np.asarray(stored, dtype=np.float32), wanted)
    for document, vector in list(zip(documents, wanted, strict=True))[::5]:
        (found,) = store.similarity_search_by_vector(vector.tolist(), k=1)
        assert found.page_content == document.page_content
        metadata = {key: value for key, value in found.metadata.items() if key not in ("_id", "_collection_name")}
        assert metadata == document.metadata


@pytest.mark.parametrize("kind", ["qdrant", "chroma"])
def test_reopened(kind: str, embeddings: Qwen3VLEmbeddings, documents: list[Document], tmp_path: Path) -> None:
    """What is on disk is plain: it opens without anything of ours but the embeddings."""
    first = open_store(kind, embeddings, tmp_path)
    add_documents(first, documents)
    close(first)
    again = open_store(kind, embeddings, tmp_path)
    (found,) = again.similarity_search(STAR.caption(), k=1)
    assert source(found) == "star.png"
    close(again)


def test_documents_of_the_core_and_with_names_of_their_own(store: VectorStore, mixed: Path) -> None:
    known = "5b7c0d0c-5ad5-4f5b-8b0e-0a8f1f0f3c11"
    ids = add_documents(
        store,
        [
            *[each for each in Loader().load([mixed / "star.png"]) if isinstance(each, Core)],
            Document("a green circle", id=known, metadata={"by": "Ann"}),
        ],
    )
    assert ids[1] == known
    (found,) = store.similarity_search("a green circle", k=1)
    assert found.metadata["by"] == "Ann"


def test_equal_texts_of_two_owners(store: VectorStore) -> None:
    """Documents that differ in their metadata only are others."""
    documents = [Document("terms", metadata={"tenant": tenant, "page": page}) for tenant in "ab" for page in (3, 7)]
    assert len(set(add_documents(store, documents))) == 4
    found = store.similarity_search("terms", k=9)
    assert {(each.metadata["tenant"], each.metadata["page"]) for each in found} == {
        (t, p) for t in "ab" for p in (3, 7)
    }


def test_texts_in_a_store_keep_no_vector(embeddings: Qwen3VLEmbeddings) -> None:
    store = InMemoryVectorStore(embeddings)
    (own,) = add_documents(store, [Document("dummy_text")])
    text = store.store[own]["text"]
    short = Qwen3VLEmbeddings(model="tiny", dimensions=16)
    assert len(short.embed_documents([text])[0]) == 16


def test_what_a_store_raises_tells_what_was_written(embeddings: Qwen3VLEmbeddings) -> None:
    class Breaking(InMemoryVectorStore):
        def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
            if self.store:
                raise ConnectionError("gone")
            return super().add_documents(documents, ids, **kwargs)

    store = Breaking(embeddings)
    with pytest.raises(ConnectionError) as caught:
        add_documents(store, [Document("a"), Document(""), Document("b"), Document("c")], batch_size=2)
    notes = " ".join(caught.value.__notes__)
    assert "ends with item 3" in notes
    assert "item 1" in notes
    assert len(store.store) == 1


def test_stores_that_do_not_tell(embeddings: Qwen3VLEmbeddings) -> None:
    class Silent(InMemoryVectorStore):
        @property
        def embeddings(self) -> Any:
            return None

    assert len(add_documents(Silent(embeddings), [Document("a")], embeddings)) == 1
    with pytest.raises(StoreError, match="NoneType"):
        add_documents(Silent(embeddings), [Document("a")])


def test_stores_that_cannot(embeddings: Qwen3VLEmbeddings, documents: list[Document]) -> None:
    with pytest.raises(StoreError, match="DeterministicFakeEmbedding, which knows only texts"):
        add_documents(InMemoryVectorStore(DeterministicFakeEmbedding(size=6)), documents)
    cached = CacheBackedEmbeddings.from_bytes_store(embeddings, InMemoryByteStore(), key_encoder="sha256")
    with pytest.raises(StoreError, match="CacheBackedEmbeddings"):
        add_documents(InMemoryVectorStore(cached), documents)

    class Tidying(InMemoryVectorStore):
        def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
            tidied = [Document(each.page_content.strip() or "?", metadata=each.metadata) for each in documents]
            return super().add_documents(tidied, ids, **kwargs)

    with pytest.raises(StoreError, match="Tidying did not hand 37 of 37 texts on"):
        add_documents(Tidying(embeddings), documents)
    with pytest.raises(RecipeError, match="dimensions"):
        add_documents(InMemoryVectorStore(embeddings), documents, Qwen3VLEmbeddings(model="tiny", dimensions=8))
    with pytest.raises(ValueError, match="batch_size"):
        add_documents(InMemoryVectorStore(embeddings), documents, batch_size=0)


def test_the_loader(mixed: Path, tmp_path: Path) -> None:
    loaded = Qwen3VLLoader(mixed).load()
    core = [each for each in Loader().load(mixed) if isinstance(each, Core)]
    assert [from_langchain(each) for each in loaded] == core
    assert [to_langchain(from_langchain(each)) for each in loaded] == loaded
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-nothing")
    loader = Qwen3VLLoader(tmp_path)
    assert loader.load() == []
    assert [Path(failure.source).name for failure in loader.failures] == ["broken.pdf"]
    with pytest.raises(InputError, match=r"broken\.pdf"):
        Qwen3VLLoader(str(tmp_path), on_error="raise").load()
    pages = Qwen3VLLoader([mixed / "slides.pdf"], loader=Loader(fuse_page_text=True)).load()
    assert [from_langchain(each).fused for each in pages] == [True, True]


class Listening(BaseCallbackHandler):
    def __init__(self) -> None:
        self.tags: list[Any] = []
        self.found: list[Document] = []

    def on_retriever_start(self, serialized: Any, query: Any, *, tags: Any = None, **kwargs: Any) -> None:
        self.tags.append(tags)

    def on_retriever_end(self, documents: Any, **kwargs: Any) -> None:
        self.found = list(documents)


def judged(found: list[Document]) -> list[tuple[Any, float]]:
    """Ids and the reranker's scores.  (The cosines are embedded Qdrant's: its first search rounds unlike the next.)"""
    return [(each.id, each.metadata["relevance_score"]) for each in found]


async def test_the_cores_retriever(embeddings: Qwen3VLEmbeddings, policy: MediaPolicy, mixed: Path) -> None:
    """Over a collection that `ingest` wrote, with its filters and groups, and LangChain's callbacks."""
    store = open_core_store(":memory:")
    ingest(Loader().load(mixed), embeddings.embedder, store)
    reranker = Qwen3VLReranker(model="tiny", policy=policy)
    core = Retriever(embeddings.embedder, store, reranker.reranker)
    retriever = Qwen3VLRetriever(retriever=core, k=3, tags=["mine"], metadata={"a": 1})
    listening = Listening()
    found = retriever.invoke(STAR.caption(), config={"callbacks": [listening]})
    assert (listening.tags, listening.found) == ([["mine"]], found)
    assert len(found) == 3
    assert source(found[0]) == "star.png"
    assert found[0].metadata["relevance_score"] > 0.5
    assert -1 <= found[0].metadata["score"] <= 1.00001
    (hit,) = core.search(STAR.caption(), 1)
    assert found[0].id == hit.id
    assert judged(await retriever.ainvoke(STAR.caption())) == judged(found)
    assert [judged(each) for each in retriever.batch([STAR.caption()] * 2)] == [judged(found)] * 2
    slides = retriever.invoke("a scene", k=8, where={"kind": "page"})
    assert {each.metadata["locator"] for each in slides} == {"page=1", "page=2"}
    query: Any = [{"type": "image", "url": str(mixed / "star.png")}]
    assert source(retriever.invoke(query)[0]) == "star.png"
    (one,) = Qwen3VLRetriever(
        retriever=Retriever(embeddings.embedder, store), options={"where": {"kind": "page"}, "group_by": "source"}
    ).invoke("a scene")
    assert source(one) == "slides.pdf"
    store.close()


def test_blocks_of_what_has_gone(policy: MediaPolicy, caplog: pytest.LogCaptureFixture, mixed: Path) -> None:
    gone = Document("its caption", metadata={"image": str(mixed / "gone.png")})
    assert content_blocks([gone], policy=policy) == [{"type": "text", "text": "its caption"}]
    assert "gone.png" in caplog.text
    (block,) = content_blocks([Document("", metadata={"video": str(mixed / "mover.mp4")})], policy=policy, side=100)
    assert max(Image.open(BytesIO(base64.b64decode(block["base64"]))).size) <= 102
    with pytest.raises(InputError, match="a media reference is a str"):
        content_blocks([Document("", metadata={"image": 3})], policy=policy)

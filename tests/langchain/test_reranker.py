"""The core's scores, in LangChain's documents."""

from __future__ import annotations

import asyncio
import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_vl import MediaKeys, Qwen3VLEmbeddings, Qwen3VLReranker

from qwen3vl import BatchError, InputError, MediaPolicy, Reranker
from tests.support.sample_library import STAR


@pytest.fixture(scope="module")
def policy(mixed: Path) -> MediaPolicy:
    return MediaPolicy(folders=(mixed,))


@pytest.fixture(scope="module")
def documents(mixed: Path) -> list[Document]:
    return [
        Document("a green circle", id="0"),
        Document("", metadata={"image": str(mixed / "0.png"), "deep": {"x": [1]}}, id="1"),
        Document("", metadata={"image": str(mixed / "star.png")}, id="2"),
        Document(STAR.caption(), metadata={"image": str(mixed / "star.png")}, id="3"),
        Document("", metadata={"video": str(mixed / "mover.mp4")}),
        Document("a green circle", id="5"),
    ]


def inputs(documents: list[Document]) -> list[Any]:
    found = []
    for document in documents:
        media = {key: value for key, value in document.metadata.items() if key in ("image", "video")}
        found.append({"text": document.page_content, **media} if document.page_content else media)
    return found


def test_the_cores_scores(documents: list[Document], policy: MediaPolicy, tiny_reranker: Reranker) -> None:
    before = copy.deepcopy(documents)
    ours = Qwen3VLReranker(model="tiny", policy=policy, top_n=None)
    wanted = tiny_reranker.score(STAR.caption(), inputs(documents)).tolist()
    found = ours.compress_documents(documents, STAR.caption())
    assert {each.id or "4": each.metadata["relevance_score"] for each in found} == dict(
        zip("012345", wanted, strict=True)
    )
    scores = [each.metadata["relevance_score"] for each in found]
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is float for score in scores)
    assert {found[0].id, found[1].id} == {"2", "3"}
    ids = [each.id for each in found]
    assert ids.index("0") < ids.index("5")  # equal scores keep their order
    assert next(each for each in found if each.id == "1").metadata["deep"] == {"x": [1]}
    assert documents == before
    assert asyncio.run(ours.acompress_documents(documents, STAR.caption())) == found
    told = ours.rerank(STAR.caption(), documents)
    assert [each["relevance_score"] for each in told] == scores
    assert ours.rerank(STAR.caption(), inputs(documents)) == told


def test_top_n_and_threshold(documents: list[Document], policy: MediaPolicy) -> None:
    ours = Qwen3VLReranker(model="tiny", policy=policy)
    assert len(ours.compress_documents(documents, "a red star")) == 3
    assert len(ours.rerank("a red star", documents, top_n=5)) == 5
    few = Qwen3VLReranker(model="tiny", policy=policy, score_threshold=0.5)
    assert {each.id for each in few.compress_documents(documents, STAR.caption())} == {"2", "3"}
    assert ours.rerank("a", documents, top_n=0) == []
    assert ours.compress_documents([], "a") == []
    with pytest.raises(ValueError, match="top_n"):
        ours.rerank("a", documents, top_n=-1)


def test_instruction_and_queries_with_pictures(
    documents: list[Document], policy: MediaPolicy, tiny_reranker: Reranker, mixed: Path
) -> None:
    query: Any = {"image": str(mixed / "star.png")}
    ours = Qwen3VLReranker(model="tiny", policy=policy, instruction="Find the same.", top_n=None)
    wanted = tiny_reranker.score(query, inputs(documents), instruction="Find the same.").tolist()
    assert {each["index"]: each["relevance_score"] for each in ours.rerank(query, documents)} == dict(enumerate(wanted))
    plain = Qwen3VLReranker(model="tiny", policy=policy, top_n=None)
    assert plain.rerank(query, documents, instruction="Find the same.") == ours.rerank(query, documents)
    assert plain.rerank(query, documents) != ours.rerank(query, documents)


def test_documents_that_cannot_be_read(documents: list[Document], policy: MediaPolicy, mixed: Path) -> None:
    broken = [
        Document("", metadata={"image": str(mixed / "corrupt [x].png")}, id="broken"),
        Document("", metadata={"image": "/etc/hostname"}, id="outside"),
        Document("", metadata={"image": 7}, id="odd"),
        Document("", id="empty"),
    ]
    ours = Qwen3VLReranker(model="tiny", policy=policy, top_n=None, score_threshold=0.5)
    found = ours.compress_documents([*broken, *documents], STAR.caption())
    assert {each.id for each in found[:2]} == {"2", "3"}
    assert [each.id for each in found[2:]] == ["broken", "outside", "odd", "empty"]
    reasons = [each.metadata["rerank_error"] for each in found[2:]]
    for reason, words in zip(reasons, ("not an image|broken", "outside the folders", "type int", "empty"), strict=True):
        assert any(word in reason for word in words.split("|"))
    assert "relevance_score" not in found[2].metadata
    stale = [Document("", metadata={"image": 7, "relevance_score": 0.9}), Document("a", metadata={"rerank_error": "x"})]
    fresh = ours.model_copy(update={"score_threshold": None}).compress_documents(stale, "a")
    assert ["relevance_score" in each.metadata for each in fresh] == [True, False]
    assert ["rerank_error" in each.metadata for each in fresh] == [False, True]
    assert len(ours.rerank("a", "one text")) <= 1
    told = ours.rerank(STAR.caption(), [*broken, *documents])
    assert told[2]["relevance_score"] is None
    assert told[2]["index"] == 0
    strict = Qwen3VLReranker(model="tiny", policy=policy, on_error="raise")
    with pytest.raises(BatchError, match="4 of 10"):
        strict.compress_documents([*documents, *broken], STAR.caption())
    with pytest.raises(InputError, match="the query"):
        ours.compress_documents(documents, {"image": "/etc/hostname"})


def test_keys(mixed: Path, policy: MediaPolicy) -> None:
    document = Document("", metadata={"image": "a caption, not a file", "photo_url": str(mixed / "star.png")})
    ours = Qwen3VLReranker(
        model="tiny", policy=policy, media_keys=MediaKeys(image=("photo", "photo_url")), on_error="raise"
    )
    assert ours.rerank(STAR.caption(), [document])[0]["relevance_score"] > 0.5


@pytest.fixture(scope="module")
def compressing(documents: list[Document], policy: MediaPolicy) -> ContextualCompressionRetriever:
    from langchain_qwen3_vl import add_documents

    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=policy))
    add_documents(store, documents)
    pipeline = DocumentCompressorPipeline(transformers=[Qwen3VLReranker(model="tiny", policy=policy, top_n=2)])
    return ContextualCompressionRetriever(
        base_compressor=pipeline, base_retriever=store.as_retriever(search_kwargs={"k": 6})
    )


async def test_in_chains(compressing: ContextualCompressionRetriever) -> None:
    def ids(told: dict[str, Any]) -> list[str | None]:
        return [each.id for each in told["found"]]

    chain: Runnable[Any, Any] = RunnableParallel(found=compressing) | RunnableLambda(ids)
    one = chain.invoke(STAR.caption())
    assert set(one) == {"2", "3"}
    assert await chain.ainvoke(STAR.caption()) == one
    assert chain.batch([STAR.caption()] * 3) == [one] * 3
    assert await chain.abatch([STAR.caption()] * 3) == [one] * 3


async def test_threads_and_tasks(documents: list[Document], policy: MediaPolicy) -> None:
    ours = Qwen3VLReranker(model="tiny", policy=policy)
    queries = [f"a {colour} star" for colour in ("red", "green", "blue", "pink")] * 50
    wanted = {query: ours.compress_documents(documents[:3], query) for query in queries[:4]}
    found = await asyncio.gather(*(ours.acompress_documents(documents[:3], query) for query in queries))
    assert found == [wanted[query] for query in queries]
    with ThreadPoolExecutor(32) as pool:
        again = list(pool.map(lambda query: ours.compress_documents(documents[:3], query), queries[:96]))
    assert again == found[:96]

"""`Qwen3VLReranker` returns the core's scores in the metadata of LangChain's documents."""

from __future__ import annotations

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import Document
from langchain_core.runnables import Runnable, RunnableLambda, RunnableParallel
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qwen3_vl import MediaKeys, Qwen3VLEmbeddings, Qwen3VLReranker, add_documents

from qwen3vl import BatchError, InputError, MediaPolicy, Reranker
from tests.support.engines import assert_close, await_while_busy
from tests.support.sample_library import STAR


@pytest.fixture(scope="module")
def documents(library_folder: Path) -> list[Document]:
    return [
        Document("a green circle", id="0"),
        Document("", metadata={"image": str(library_folder / "0.png"), "deep": {"x": [1]}}, id="1"),
        Document("", metadata={"image": str(library_folder / "star.png")}, id="2"),
        Document(STAR.caption(), metadata={"image": str(library_folder / "star.png")}, id="3"),
        Document("", metadata={"video": str(library_folder / "mover.mp4")}),
        Document("a green circle", id="5"),
    ]


@pytest.fixture(scope="module")
def unreadable(library_folder: Path) -> list[Document]:
    return [
        Document("", metadata={"image": str(library_folder / "corrupt [x].png")}, id="broken"),
        Document("", metadata={"image": "/etc/hostname"}, id="outside"),
        Document("", metadata={"image": 7}, id="odd"),
        Document("", id="empty"),
    ]


def to_inputs(documents: list[Document]) -> list[Any]:
    """Inputs of the core, written independently of the package."""
    inputs = []
    for document in documents:
        media = {key: value for key, value in document.metadata.items() if key in ("image", "video")}
        inputs.append({"text": document.page_content, **media} if document.page_content else media)
    return inputs


def test_documents_get_the_scores_of_the_core(
    documents: list[Document], policy: MediaPolicy, tiny_reranker: Reranker
) -> None:
    originals = copy.deepcopy(documents)
    reranker = Qwen3VLReranker(model="tiny", policy=policy, top_n=None)
    expected = tiny_reranker.score(STAR.caption(), to_inputs(documents)).tolist()
    reranked = reranker.compress_documents(documents, STAR.caption())
    by_id = {document.id or "4": document.metadata["relevance_score"] for document in reranked}
    assert_close([by_id[document_id] for document_id in "012345"], expected)
    scores = [document.metadata["relevance_score"] for document in reranked]
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is float for score in scores)
    assert {reranked[0].id, reranked[1].id} == {"2", "3"}
    ids = [document.id for document in reranked]
    assert ids.index("0") < ids.index("5")  # equal scores keep their order
    assert next(document for document in reranked if document.id == "1").metadata["deep"] == {"x": [1]}
    assert documents == originals
    assert_same_ranking(asyncio.run(reranker.acompress_documents(documents, STAR.caption())), reranked)
    for results in (
        reranker.rerank(STAR.caption(), documents),
        reranker.rerank(STAR.caption(), to_inputs(documents)),
        asyncio.run(reranker.arerank(STAR.caption(), documents)),
    ):
        assert [documents[result["index"]].id for result in results] == ids
        assert_close([result["relevance_score"] for result in results], scores)


def assert_same_ranking(reranked: list[Document], expected: list[Document]) -> None:
    assert [document.id for document in reranked] == [document.id for document in expected]
    assert_close(scores_of(reranked), scores_of(expected))


@pytest.mark.engine
async def test_awaits_share_forward_passes(documents: list[Document], policy: MediaPolicy, checkpoints: Path) -> None:
    reranker = Qwen3VLReranker(model="tiny", device="cpu", policy=policy)
    texts, query = [documents[0], documents[5]], STAR.caption()
    calls: list[Any] = [reranker.acompress_documents(texts, query) for _ in range(15)]
    calls += [reranker.arerank(query, texts) for _ in range(15)]
    results, num_passes = await await_while_busy(checkpoints / "embedding", reranker.reranker.engine, calls, 60)
    assert num_passes < 5
    expected = reranker.compress_documents(texts, query)
    for reranked in results[:15]:
        assert_close(scores_of(reranked), scores_of(expected))
    for ranking in results[15:]:
        assert_close([ranked["relevance_score"] for ranked in ranking], scores_of(expected))


def scores_of(reranked: list[Document]) -> list[float]:
    return [document.metadata["relevance_score"] for document in reranked]


def scores_by_index(results: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    return np.array([result["relevance_score"] for result in sorted(results, key=itemgetter("index"))])


def test_top_n_and_threshold_limit_the_results(documents: list[Document], policy: MediaPolicy) -> None:
    reranker = Qwen3VLReranker(model="tiny", policy=policy)
    assert len(reranker.compress_documents(documents, "a red star")) == 3
    assert len(reranker.rerank("a red star", documents, top_n=5)) == 5
    strict = Qwen3VLReranker(model="tiny", policy=policy, score_threshold=0.5)
    assert {document.id for document in strict.compress_documents(documents, STAR.caption())} == {"2", "3"}
    assert reranker.rerank("a", documents, top_n=0) == []
    assert reranker.compress_documents([], "a") == []
    assert len(reranker.rerank("a", "one text")) == 1
    with pytest.raises(ValueError, match="top_n"):
        reranker.rerank("a", documents, top_n=-1)


def test_instruction_and_image_queries_are_applied(
    documents: list[Document], policy: MediaPolicy, tiny_reranker: Reranker, library_folder: Path
) -> None:
    query: Any = {"image": str(library_folder / "star.png")}
    instructed = Qwen3VLReranker(model="tiny", policy=policy, instruction="Find the same.", top_n=None)
    expected = tiny_reranker.score(query, to_inputs(documents), instruction="Find the same.")
    assert_close(scores_by_index(instructed.rerank(query, documents)), expected)
    default = Qwen3VLReranker(model="tiny", policy=policy, top_n=None)
    results = default.rerank(query, documents, instruction="Find the same.")
    assert_close(scores_by_index(results), expected)
    assert [result["index"] for result in results] == np.argsort(-np.array(expected), kind="stable").tolist()
    assert np.abs(scores_by_index(default.rerank(query, documents)) - expected).max() > 1e-3


def test_unreadable_documents_come_last_with_the_reason(
    documents: list[Document], unreadable: list[Document], policy: MediaPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = Qwen3VLReranker(model="tiny", policy=policy, top_n=None)
    reranked = reranker.compress_documents([*unreadable, *documents], STAR.caption())
    assert {document.id for document in reranked[:2]} == {"2", "3"}
    assert [document.id for document in reranked[6:]] == ["broken", "outside", "odd", "empty"]
    reasons = [document.metadata["rerank_error"] for document in reranked[6:]]
    expected_words = (("not a picture", "not an image", "broken"), ("outside the folders",), ("type int",), ("empty",))
    for reason, words in zip(reasons, expected_words, strict=True):
        assert any(word in reason for word in words)
    assert all(reason in caplog.text for reason in reasons)
    assert [document.metadata["relevance_score"] for document in reranked[6:]] == [None] * 4
    assert all("rerank_error" not in document.metadata for document in reranked[:6])
    results = reranker.rerank(STAR.caption(), [*unreadable, *documents])
    assert results[6]["relevance_score"] is None
    assert results[6]["rerank_error"] == reasons[0]
    assert results[6]["index"] == 0


def test_unreadable_documents_never_pass_a_threshold(
    documents: list[Document], unreadable: list[Document], policy: MediaPolicy
) -> None:
    for threshold, ids in ((0.5, {"2", "3"}), (1.0, set()), (0.0, {"0", "1", "2", "3", None, "5"})):
        reranker = Qwen3VLReranker(model="tiny", policy=policy, top_n=None, score_threshold=threshold)
        assert {d.id for d in reranker.compress_documents([*unreadable, *documents], STAR.caption())} == ids
        results = reranker.rerank(STAR.caption(), [*unreadable, *documents])
        assert all(result["relevance_score"] is not None for result in results)
    top = Qwen3VLReranker(model="tiny", policy=policy, top_n=2)
    assert {document.id for document in top.compress_documents([*unreadable, *documents], STAR.caption())} == {"2", "3"}


def test_policy_without_folders_is_named_once_when_documents_refer_to_files(
    documents: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    reranker = Qwen3VLReranker(model="tiny")
    reranker.compress_documents([Document("a text"), Document("", metadata={"image": 7})], "a")
    assert "allows no file" not in caplog.text
    for _ in range(2):
        reranker.compress_documents(documents, STAR.caption())
    messages = [record.getMessage() for record in caplog.records if "allows no file" in record.getMessage()]
    assert len(messages) == 1
    assert "Qwen3VLReranker(policy=MediaPolicy(folders=[...]))" in messages[0]


def test_metadata_of_an_earlier_reranking_are_replaced(policy: MediaPolicy) -> None:
    documents = [
        Document("", metadata={"image": 7, "relevance_score": 0.9}),
        Document("a", metadata={"rerank_error": "x"}),
    ]
    reranked = Qwen3VLReranker(model="tiny", policy=policy).compress_documents(documents, "a")
    assert [document.metadata["relevance_score"] is None for document in reranked] == [False, True]
    assert ["rerank_error" in document.metadata for document in reranked] == [False, True]


def test_unreadable_documents_raise_a_batch_error_with_the_other_scores(
    documents: list[Document], unreadable: list[Document], policy: MediaPolicy, tiny_reranker: Reranker
) -> None:
    reranker = Qwen3VLReranker(model="tiny", policy=policy, on_error="raise")
    with pytest.raises(BatchError, match="4 of 10") as caught:
        reranker.compress_documents([*documents, *unreadable], STAR.caption())
    expected = tiny_reranker.score(STAR.caption(), to_inputs(documents)).tolist()
    assert caught.value.results == [*expected, None, None, None, None]
    assert [error.index for error in caught.value.errors] == [6, 7, 8, 9]


@pytest.mark.parametrize(
    "query", [{"image": "/etc/hostname"}, [{"type": "audio"}], Document("", metadata={"image": 7})]
)
def test_unusable_query_is_an_input_error(documents: list[Document], policy: MediaPolicy, query: Any) -> None:
    with pytest.raises(InputError, match="the query"):
        Qwen3VLReranker(model="tiny", policy=policy).compress_documents(documents, query)


def test_first_media_key_that_is_set_counts(library_folder: Path, policy: MediaPolicy) -> None:
    document = Document("", metadata={"image": "a caption, not a file", "photo_url": str(library_folder / "star.png")})
    reranker = Qwen3VLReranker(
        model="tiny", policy=policy, media_keys=MediaKeys(image=("photo", "photo_url")), on_error="raise"
    )
    assert reranker.rerank(STAR.caption(), [document])[0]["relevance_score"] > 0.5


def test_pickle_holds_settings_without_the_model() -> None:
    reranker = Qwen3VLReranker(model="tiny")
    results = reranker.rerank("a", ["a", "b"])
    unused = Qwen3VLReranker(model="tiny")
    assert len(pickle.dumps(reranker)) == len(pickle.dumps(unused))
    assert pickle.loads(pickle.dumps(reranker)).rerank("a", ["a", "b"]) == results


@pytest.fixture(scope="module")
def compression_retriever(documents: list[Document], policy: MediaPolicy) -> ContextualCompressionRetriever:
    store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=policy))
    add_documents(store, documents)
    pipeline = DocumentCompressorPipeline(transformers=[Qwen3VLReranker(model="tiny", policy=policy, top_n=2)])
    return ContextualCompressionRetriever(
        base_compressor=pipeline, base_retriever=store.as_retriever(search_kwargs={"k": 6})
    )


async def test_chain_returns_the_same_in_every_mode(compression_retriever: ContextualCompressionRetriever) -> None:
    def to_ids(values: dict[str, Any]) -> list[str | None]:
        return [document.id for document in values["documents"]]

    chain: Runnable[Any, Any] = RunnableParallel(documents=compression_retriever) | RunnableLambda(to_ids)
    ids = chain.invoke(STAR.caption())
    assert set(ids) == {"2", "3"}
    assert await chain.ainvoke(STAR.caption()) == ids
    assert chain.batch([STAR.caption()] * 3) == [ids] * 3
    assert await chain.abatch([STAR.caption()] * 3) == [ids] * 3


async def test_threads_and_tasks_get_the_right_results(documents: list[Document], policy: MediaPolicy) -> None:
    reranker = Qwen3VLReranker(model="tiny", policy=policy)
    queries = [f"a {colour} star" for colour in ("red", "green", "blue", "pink")] * 50
    expected = {query: reranker.compress_documents(documents[:3], query) for query in queries[:4]}
    results = await asyncio.gather(*(reranker.acompress_documents(documents[:3], query) for query in queries))
    for query, reranked in zip(queries, results, strict=True):
        assert_same_ranking(reranked, expected[query])
    with ThreadPoolExecutor(32) as pool:
        thread_results = list(pool.map(lambda query: reranker.compress_documents(documents[:3], query), queries[:96]))
    for query, reranked in zip(queries, thread_results, strict=False):
        assert_same_ranking(reranked, expected[query])

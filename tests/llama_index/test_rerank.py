"""Qwen3VLRerank: the reranker's scores on nodes, failures, events, and hostile references everywhere."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import ImageNode, MediaResource, MetadataMode, Node, NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.nodes import node_input
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from pydantic import ValidationError

from qwen3vl import BatchError, InputError, MediaPolicy, Reranker
from tests.support.engines import assert_close, await_while_busy
from tests.support.hostile.references import HOSTILE, prepare, reference
from tests.support.http_server import Server
from tests.support.sample_library import STAR


@pytest.fixture(scope="module")
def scored(library_folder: Path) -> list[NodeWithScore]:
    """Seven nodes with the ids "0" to "6" and the scores 0, 0.1, …; "0" and "5" are equal, "2" and "3" show STAR."""
    star = str(library_folder / "star.png")
    nodes: list[Any] = [
        TextNode(text="a green circle", id_="0"),
        ImageNode(image_path=str(library_folder / "0.png"), id_="1"),
        ImageNode(image_path=star, id_="2"),
        ImageNode(text=STAR.caption(), image_path=star, id_="3"),
        Node(video_resource=MediaResource(path=library_folder / "mover.mp4"), id_="4"),
        TextNode(text="a green circle", id_="5"),
        TextNode(text="", metadata={"image": str(library_folder / "slides.pdf#page=2")}, id_="6"),
    ]
    return [NodeWithScore(node=node, score=0.1 * index) for index, node in enumerate(nodes)]


def ids(hits: list[NodeWithScore]) -> list[str]:
    return [hit.node.node_id for hit in hits]


def scores_by_id(hits: list[NodeWithScore]) -> dict[str, float | None]:
    return {hit.node.node_id: hit.score for hit in hits}


async def test_nodes_come_back_best_first_with_the_rerankers_scores(
    scored: list[NodeWithScore], policy: MediaPolicy, tiny_reranker: Reranker
) -> None:
    before = copy.deepcopy(scored)
    rerank = Qwen3VLRerank(model="tiny", policy=policy, top_n=7)
    assert isinstance(rerank, BaseNodePostprocessor)
    expected = tiny_reranker.score(STAR.caption(), [node_input(hit.node) for hit in scored])
    reranked = rerank.postprocess_nodes(scored, query_str=STAR.caption())
    by_id = scores_by_id(reranked)
    assert_close([by_id[node_id] for node_id in "0123456"], expected)
    scores = [hit.score for hit in reranked]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert all(type(score) is float for score in scores)
    assert {reranked[0].node.node_id, reranked[1].node.node_id} == {"2", "3"}
    assert ids(reranked).index("0") < ids(reranked).index("5")  # equal scores keep their order
    assert scored == before
    assert not {id(hit) for hit in reranked} & {id(hit) for hit in scored}
    awaited = await rerank.apostprocess_nodes(scored, QueryBundle(STAR.caption()))
    assert ids(awaited) == ids(reranked)
    assert_close([hit.score for hit in awaited], scores)


def test_top_n_is_five_by_default_and_at_least_one(scored: list[NodeWithScore], policy: MediaPolicy) -> None:
    assert len(Qwen3VLRerank(model="tiny", policy=policy).postprocess_nodes(scored, query_str="a")) == 5
    with pytest.raises(ValidationError):
        Qwen3VLRerank(model="tiny", top_n=0)
    with pytest.raises(ValidationError, match="topn"):
        Qwen3VLRerank(model="tiny", topn=2)  # type: ignore[call-arg]


def test_retrieval_score_is_kept_where_neither_prompts_nor_embeddings_show_it(
    scored: list[NodeWithScore], policy: MediaPolicy
) -> None:
    rerank = Qwen3VLRerank(model="tiny", policy=policy, keep_retrieval_score=True, top_n=2)
    best = rerank.postprocess_nodes(scored, query_str=STAR.caption())
    assert sorted(hit.node.metadata["retrieval_score"] for hit in best) == pytest.approx([0.2, 0.3])
    assert "retrieval_score" not in scored[2].node.metadata
    originals = [scored[int(hit.node.node_id)].node for hit in best]
    assert [node_input(hit.node) for hit in best] == [node_input(node) for node in originals]


def test_unreadable_node_has_its_error_in_metadata_that_prompts_do_not_show(policy: MediaPolicy) -> None:
    rerank = Qwen3VLRerank(model="tiny", policy=policy)
    unreadable = [NodeWithScore(node=TextNode(text="words", metadata={"image": "/etc/hostname"}))]
    (failed,) = rerank.postprocess_nodes(unreadable, query_str="a")
    assert failed.score is None
    assert "outside the folders" in failed.node.metadata["rerank_error"]
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "rerank_error" not in failed.node.get_content(mode)


@pytest.mark.parametrize("top_n", [1, 2, 3, 9])
def test_unread_nodes_come_last_and_take_no_place_of_read_ones(
    top_n: int, policy: MediaPolicy, library_folder: Path
) -> None:
    unreadable = [NodeWithScore(node=ImageNode(image_path=f"/etc/{name}", id_=name), score=0.9) for name in "ab"]
    readable = [
        NodeWithScore(node=TextNode(text=text, id_=text), score=0.1) for text in (STAR.caption(), "a green circle")
    ]
    rerank = Qwen3VLRerank(model="tiny", policy=policy, top_n=top_n)
    hits = rerank.postprocess_nodes([*unreadable, *readable], query_str=STAR.caption())
    assert ids(hits) == [STAR.caption(), "a green circle", "a", "b"][:top_n]
    for hit in hits[2:]:
        assert hit.score is None
        assert "outside the folders" in hit.node.metadata["rerank_error"]
    for cutoff in (0.0, 0.5, 1e-9):
        passed = SimilarityPostprocessor(similarity_cutoff=cutoff).postprocess_nodes(hits)
        assert ids(passed) == ids([hit for hit in hits[:2] if (hit.score or 0.0) >= cutoff])


async def test_reranker_whose_policy_allows_no_file_says_so_once(
    scored: list[NodeWithScore], caplog: pytest.LogCaptureFixture
) -> None:
    rerank = Qwen3VLRerank(model="tiny", top_n=7)
    broken = NodeWithScore(node=TextNode(text="", metadata={"image": 7}, id_="broken"))
    for _ in range(2):
        hits = rerank.postprocess_nodes([*scored, broken], query_str="a star")
        assert [hit.score is None for hit in hits] == [False] * 2 + [True] * 5
        assert all("MediaPolicy(folders=" in hit.node.metadata["rerank_error"] for hit in hits[2:])
    await rerank.apostprocess_nodes(scored, QueryBundle("a star"))
    messages = [record.getMessage() for record in caplog.records]
    about_files = [message for message in messages if "policy=MediaPolicy(folders=('photos',))" in message]
    assert len(about_files) == 1
    assert "5 of 8 nodes name files, and the policy of this Qwen3VLRerank allows none" in about_files[0]
    assert len(messages) == 3  # and the broken reference in each of two calls
    assert pickle.loads(pickle.dumps(rerank)) == rerank
    caplog.clear()
    Qwen3VLRerank(model="tiny").postprocess_nodes(scored, query_str="a star")
    assert len(caplog.records) == 1  # another object says it again


def test_rerank_error_of_an_earlier_run_is_removed(policy: MediaPolicy) -> None:
    node = TextNode(text="words", metadata={"rerank_error": "it was missing"})
    (hit,) = Qwen3VLRerank(model="tiny", policy=policy).postprocess_nodes([NodeWithScore(node=node)], query_str="a")
    assert hit.score is not None
    assert "rerank_error" not in hit.node.metadata


def test_queries_with_images_and_an_instruction(
    scored: list[NodeWithScore], policy: MediaPolicy, tiny_reranker: Reranker, library_folder: Path
) -> None:
    star = str(library_folder / "star.png")
    inputs = [node_input(hit.node) for hit in scored]
    rerank = Qwen3VLRerank(model="tiny", policy=policy, instruction="Find the same.", top_n=9)
    cases: list[tuple[QueryBundle, Any]] = [
        (QueryBundle(query_str="", image_path=star), {"image": star}),
        (QueryBundle(query_str="a star", image_path=star), {"text": "a star", "image": star}),
    ]
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=policy)
    queries: list[Any] = [
        {"image": star},
        {"image": library_folder / "star.png"},
        {"image": [star]},
        {"video": str(library_folder / "mover.mp4")},
    ]
    cases += [(embed_model.query_bundle(query), query) for query in queries]
    for bundle, query in cases:
        expected = tiny_reranker.score(query, inputs, instruction="Find the same.")
        scores = scores_by_id(rerank.postprocess_nodes(scored, bundle))
        assert_close([scores[node_id] for node_id in "0123456"], expected)


def test_missing_query_is_an_error(scored: list[NodeWithScore], policy: MediaPolicy) -> None:
    with pytest.raises(ValueError, match="query_bundle"):
        Qwen3VLRerank(model="tiny", policy=policy).postprocess_nodes(scored)


class RerankEvents(BaseEventHandler):
    """Keeps the rerank events it receives."""

    events: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def handle(self, event: Any, **_: Any) -> None:
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent)):
            self.events.append(event)


@pytest.fixture
def handler() -> Iterator[RerankEvents]:
    received = RerankEvents()
    root = get_dispatcher()
    root.add_event_handler(received)
    yield received
    root.event_handlers.remove(received)


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
@pytest.mark.parametrize("case", ["nodes", "no nodes", "empty query"])
async def test_every_call_sends_start_and_end_events(
    case: str, awaited: bool, scored: list[NodeWithScore], policy: MediaPolicy, handler: RerankEvents
) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    rerank = Qwen3VLRerank(model="tiny", policy=policy, callback_manager=CallbackManager([debug]))
    nodes = [] if case == "no nodes" else scored
    bundle = QueryBundle("" if case == "empty query" else "a")
    reranked: list[NodeWithScore] = []

    async def call() -> list[NodeWithScore]:
        if awaited:
            return await rerank.apostprocess_nodes(nodes, bundle)
        return rerank.postprocess_nodes(nodes, bundle)

    if case == "empty query":
        with pytest.raises(InputError):
            await call()
    else:
        reranked = await call()
        assert len(reranked) == min(len(nodes), 5)
    start, end = handler.events
    assert (start.top_n, start.model_name, len(start.nodes)) == (5, "tiny", len(nodes))
    assert ids(end.nodes) == ids(reranked)
    assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1


async def test_concurrent_calls_return_the_same_as_one_at_a_time(
    scored: list[NodeWithScore], policy: MediaPolicy
) -> None:
    rerank = Qwen3VLRerank(model="tiny", policy=policy)
    queries = [f"a {colour} star" for colour in ("red", "green", "blue", "pink")] * 50
    expected = {query: rerank.postprocess_nodes(scored[:3], query_str=query) for query in queries[:4]}
    awaited = await asyncio.gather(*(rerank.apostprocess_nodes(scored[:3], QueryBundle(query)) for query in queries))
    with ThreadPoolExecutor(32) as pool:
        threaded = pool.map(lambda query: rerank.postprocess_nodes(scored[:3], query_str=query), queries[:64])
        for query, reranked in zip(queries + queries[:64], [*awaited, *threaded], strict=True):
            assert ids(reranked) == ids(expected[query])
            assert_close([node.score for node in reranked], [node.score for node in expected[query]])


@pytest.mark.engine
async def test_awaits_share_forward_passes(checkpoints: Path) -> None:
    rerank = Qwen3VLRerank(model="tiny", device="cpu")
    nodes = [NodeWithScore(node=TextNode(text=text, id_=text)) for text in ("a red star", "a blue circle")]
    calls = [rerank.apostprocess_nodes(nodes, QueryBundle("a star")) for _ in range(30)]
    results, num_passes = await await_while_busy(checkpoints / "embedding", rerank.reranker.engine, calls, 60)
    assert num_passes < 5
    expected = rerank.postprocess_nodes(nodes, query_str="a star")
    for reranked in results:
        assert ids(reranked) == ids(expected)
        assert_close([node.score for node in reranked], [node.score for node in expected])


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("allowed"))


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_reference_fails_alone_and_fetches_nothing(number: int, allowed: Path, server: Server) -> None:
    """In metadata, in `ImageNode`s and in queries; with caches and without."""
    server.pages["/a.png"] = (200, {}, b"secret")
    value, reason = reference(number, allowed, server)
    policy = MediaPolicy(folders=(allowed,))
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=policy)
    cached = Qwen3VLEmbedding(model_name="tiny", policy=policy, embeddings_cache=SimpleKVStore())
    rerank = Qwen3VLRerank(model="tiny", policy=policy)
    hostile_nodes: list[Any] = [TextNode(text="", metadata={"image": value}, id_="bad")]
    if isinstance(value, str):
        key = "image_url" if value.startswith("http") else "image_path"
        hostile_nodes.append(ImageNode(**{key: value}, id_="bad"))
        with pytest.raises(InputError, match="the query"):
            rerank.postprocess_nodes([NodeWithScore(node=TextNode(text="a"))], QueryBundle("", image_path=value))
        with pytest.raises(BatchError) as image_error:
            embed_model.get_image_embedding(value)
        assert reason in str(image_error.value)
    for node in hostile_nodes:
        with pytest.raises((BatchError, InputError)) as node_error:
            embed_model([TextNode(text="before"), node])
        assert reason in str(node_error.value)
        # The caches read media too, under the same policy; the pipeline's does so before anything is embedded.
        with pytest.raises((BatchError, InputError)) as cache_error:
            IngestionPipeline(transformations=[cached]).run(nodes=[node])
        assert reason in str(cache_error.value)
        assert Qwen3VLPictures(policy=policy).postprocess_nodes([NodeWithScore(node=node)])[0].node is node
        candidates = [NodeWithScore(node=candidate) for candidate in (node, TextNode(text="a red star", id_="good"))]
        good, bad = rerank.postprocess_nodes(candidates, query_str="a red star")
        assert (good.node.node_id, bad.node.node_id, bad.score) == ("good", "bad", None)
        assert good.score is not None
        assert reason in bad.node.metadata["rerank_error"]
        with pytest.raises(BatchError, match="1 of 2"):
            Qwen3VLRerank(model="tiny", policy=policy, on_error="raise").postprocess_nodes(candidates, query_str="a")
    assert server.requested_paths == []

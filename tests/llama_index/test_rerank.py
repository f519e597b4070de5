"""The core's scores on nodes; events, failures, hostile references."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import ImageNode, MediaResource, MetadataMode, Node, NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.nodes import node_input
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from pydantic import ValidationError

from qwen3vl import BatchError, InputError, MediaPolicy, Reranker
from tests.support.hostile_media import HOSTILE, prepare, reference
from tests.support.http_server import Server
from tests.support.sample_library import STAR


@pytest.fixture(scope="module")
def policy(mixed: Path) -> MediaPolicy:
    return MediaPolicy(folders=(mixed,))


@pytest.fixture(scope="module")
def nodes(mixed: Path) -> list[NodeWithScore]:
    star = str(mixed / "star.png")
    held: list[Any] = [
        TextNode(text="a green circle", id_="0"),
        ImageNode(image_path=str(mixed / "0.png"), id_="1"),
        ImageNode(image_path=star, id_="2"),
        ImageNode(text=STAR.caption(), image_path=star, id_="3"),
        Node(video_resource=MediaResource(path=mixed / "mover.mp4"), id_="4"),
        TextNode(text="a green circle", id_="5"),
        TextNode(text="", metadata={"image": str(mixed / "slides.pdf#page=2")}, id_="6"),
    ]
    return [NodeWithScore(node=node, score=0.1 * place) for place, node in enumerate(held)]


def ids(found: list[NodeWithScore]) -> list[str]:
    return [each.node.node_id for each in found]


async def test_the_cores_scores(nodes: list[NodeWithScore], policy: MediaPolicy, tiny_reranker: Reranker) -> None:
    before = copy.deepcopy(nodes)
    ours = Qwen3VLRerank(model="tiny", policy=policy, top_n=7)
    assert isinstance(ours, BaseNodePostprocessor)
    wanted = tiny_reranker.score(STAR.caption(), [node_input(each.node) for each in nodes]).tolist()
    found = ours.postprocess_nodes(nodes, query_str=STAR.caption())
    assert {each.node.node_id: each.score for each in found} == dict(zip("0123456", wanted, strict=True))
    scores = [each.score for each in found]
    assert scores == sorted(scores, key=lambda score: -(score or 0))
    assert all(type(score) is float for score in scores)
    assert {found[0].node.node_id, found[1].node.node_id} == {"2", "3"}
    assert ids(found).index("0") < ids(found).index("5")
    assert nodes == before
    assert not {id(each) for each in found} & {id(each) for each in nodes}
    assert await ours.apostprocess_nodes(nodes, QueryBundle(STAR.caption())) == found
    assert len(Qwen3VLRerank(model="tiny", policy=policy).postprocess_nodes(nodes, query_str="a")) == 5
    kept = Qwen3VLRerank(model="tiny", policy=policy, keep_retrieval_score=True, top_n=2)
    best = kept.postprocess_nodes(nodes, query_str=STAR.caption())
    assert sorted(each.node.metadata["retrieval_score"] for each in best) == pytest.approx([0.2, 0.3])
    assert "retrieval_score" not in nodes[2].node.metadata
    # Neither prompts nor further embeddings show it.
    assert [node_input(each.node) for each in best] == [node_input(nodes[int(each.node.node_id)].node) for each in best]
    broken = [NodeWithScore(node=TextNode(text="words", metadata={"image": "/etc/hostname"}))]
    (told,) = ours.postprocess_nodes(broken, query_str="a")
    assert "outside the folders" in told.node.metadata["rerank_error"]
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "rerank_error" not in told.node.get_content(mode)


def test_queries_with_pictures_and_instruction(
    nodes: list[NodeWithScore], policy: MediaPolicy, tiny_reranker: Reranker, mixed: Path
) -> None:
    star = str(mixed / "star.png")
    inputs = [node_input(each.node) for each in nodes]
    for bundle, query in (
        (QueryBundle(query_str="", image_path=star), {"image": star}),
        (QueryBundle(query_str="a star", image_path=star), {"text": "a star", "image": star}),
    ):
        ours = Qwen3VLRerank(model="tiny", policy=policy, instruction="Find the same.", top_n=9)
        wanted = tiny_reranker.score(query, inputs, instruction="Find the same.").tolist()
        found = {each.node.node_id: each.score for each in ours.postprocess_nodes(nodes, bundle)}
        assert found == dict(zip("0123456", wanted, strict=True))
    model = Qwen3VLEmbedding(model_name="tiny", policy=policy)
    for given in ({"image": star}, {"image": mixed / "star.png"}, [star], {"video": str(mixed / "mover.mp4")}):
        asked: Any = {"image": given} if isinstance(given, list) else given
        wanted = tiny_reranker.score(asked, inputs, instruction="Find the same.").tolist()
        found = {each.node.node_id: each.score for each in ours.postprocess_nodes(nodes, model.query_bundle(asked))}
        assert found == dict(zip("0123456", wanted, strict=True))


class Heard(BaseEventHandler):
    events: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def handle(self, event: Any, **_: Any) -> None:
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent)):
            self.events.append(event)


async def test_events_on_every_path(nodes: list[NodeWithScore], policy: MediaPolicy) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    ours = Qwen3VLRerank(model="tiny", policy=policy, callback_manager=CallbackManager([debug]))
    heard = Heard()
    root = get_dispatcher()
    root.add_event_handler(heard)
    try:
        for given, text in ((nodes, "a"), ([], "a"), (nodes, "")):
            for awaited in (False, True):
                heard.events.clear()
                debug.flush_event_logs()
                found: list[NodeWithScore] = []
                try:
                    bundle = QueryBundle(text)
                    found = (
                        await ours.apostprocess_nodes(given, bundle)
                        if awaited
                        else ours.postprocess_nodes(given, bundle)
                    )
                except InputError:
                    assert text == ""
                start, end = heard.events
                assert (start.top_n, start.model_name, len(start.nodes)) == (5, "tiny", len(given))
                assert ids(end.nodes) == ids(found)
                assert len(debug.get_event_pairs(CBEventType.RERANKING)) == 1
    finally:
        root.event_handlers.remove(heard)
    with pytest.raises(ValueError, match="query_bundle"):
        ours.postprocess_nodes(nodes)


def test_copies(nodes: list[NodeWithScore], policy: MediaPolicy) -> None:
    ours = Qwen3VLRerank(model="tiny", policy=policy, top_n=2)
    found = ours.postprocess_nodes(nodes, query_str="a")
    told = json.loads(json.dumps(ours.to_dict()))
    assert Qwen3VLRerank.from_dict(told).postprocess_nodes(nodes, query_str="a") == found
    packed = pickle.dumps(ours)
    assert len(packed) < 10_000
    assert pickle.loads(packed).reranker is ours.reranker
    with pytest.raises(ValidationError, match="topn"):
        Qwen3VLRerank(model="tiny", topn=2)  # type: ignore[call-arg]
    with pytest.raises(ValidationError):
        Qwen3VLRerank(model="tiny", top_n=0)


async def test_threads_and_tasks(nodes: list[NodeWithScore], policy: MediaPolicy) -> None:
    ours = Qwen3VLRerank(model="tiny", policy=policy)
    queries = [f"a {colour} star" for colour in ("red", "green", "blue", "pink")] * 50
    wanted = {query: ours.postprocess_nodes(nodes[:3], query_str=query) for query in queries[:4]}
    found = await asyncio.gather(*(ours.apostprocess_nodes(nodes[:3], QueryBundle(query)) for query in queries))
    assert found == [wanted[query] for query in queries]
    with ThreadPoolExecutor(32) as pool:
        asked = pool.map(lambda query: ours.postprocess_nodes(nodes[:3], query_str=query), queries[:64])
        assert list(asked) == found[:64]


@pytest.fixture(scope="module")
def allowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("allowed"))


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_references(number: int, allowed: Path, server: Server) -> None:
    """In metadata, in ImageNodes and in queries: refused, nobody else's cost, and nothing is fetched."""
    server.pages["/a.png"] = (200, {}, b"secret")
    given, reason = reference(number, allowed, server)
    policy = MediaPolicy(folders=(allowed,))
    model = Qwen3VLEmbedding(model_name="tiny", policy=policy)
    remembering = Qwen3VLEmbedding(model_name="tiny", policy=policy, embeddings_cache=SimpleKVStore())
    ours = Qwen3VLRerank(model="tiny", policy=policy)
    bad: list[Any] = [TextNode(text="", metadata={"image": given}, id_="bad")]
    if isinstance(given, str):
        key = "image_url" if given.startswith("http") else "image_path"
        bad.append(ImageNode(**{key: given}, id_="bad"))
        with pytest.raises(InputError, match="the query"):
            ours.postprocess_nodes([NodeWithScore(node=TextNode(text="a"))], QueryBundle("", image_path=given))
        with pytest.raises(BatchError) as caught:
            model.get_image_embedding(given)
        assert reason in str(caught.value)
    for node in bad:
        with pytest.raises((BatchError, InputError)) as refused:
            model([TextNode(text="before"), node])
        assert reason in str(refused.value)
        # Caches look at content too, under the same policy; the pipeline's at once, before anything is embedded.
        with pytest.raises((BatchError, InputError)) as cached:
            IngestionPipeline(transformations=[remembering]).run(nodes=[node])
        assert reason in str(cached.value)
        shown = NodeWithScore(node=node)
        assert Qwen3VLPictures(policy=policy).postprocess_nodes([shown])[0].node is node
        asked = [NodeWithScore(node=each) for each in (node, TextNode(text="a red star", id_="good"))]
        good, kept = ours.postprocess_nodes(asked, query_str="a red star")
        assert (good.node.node_id, kept.node.node_id, kept.score) == ("good", "bad", None)
        assert good.score is not None
        assert reason in kept.node.metadata["rerank_error"]
        with pytest.raises(BatchError, match="1 of 2"):
            Qwen3VLRerank(model="tiny", policy=policy, on_error="raise").postprocess_nodes(asked, query_str="a")
    assert server.requested_paths == []

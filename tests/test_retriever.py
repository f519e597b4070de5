"""Retrievers: one query or many, blocking or async, give the same hits, reranked by their media."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qwen3vl_qdrant import AsyncQdrantStore

from qwen3vl import (
    AsyncRetriever,
    BatchError,
    Document,
    Embedder,
    Hit,
    InputError,
    MediaPolicy,
    PolicyError,
    RecipeError,
    Reranker,
    Retriever,
    Search,
    Store,
    aingest,
    ingest,
    open_store,
)
from qwen3vl.demo.scenes import Scene
from qwen3vl.loaders import Loader
from tests.support.drawn_scenes import draw_scenes
from tests.support.engines import GatedForward, assert_close, await_while_busy, until_ready, with_stages

Scenes = list[tuple[Path, Scene]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return draw_scenes(tmp_path_factory.mktemp("library"), 40, seed=21)


@pytest.fixture(scope="module")
def store(library: Scenes, tiny_embedder: Embedder) -> Iterator[Store]:
    opened = open_store(":memory:")
    ingest(Loader().load([library[0][0].parent]), tiny_embedder, opened)
    yield opened
    opened.close()


def test_search_many_and_async_search_equal_single_searches(
    library: Scenes, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    random = Random(2)
    queries: list[Any] = [scene.caption(random.randrange(3)) for _, scene in library[:6]]
    queries += [{"image": Scene(scene.things, 1).draw(random)} for _, scene in library[6:9]]
    queries += [{"text": "a red star", "image": library[9][1].draw(random)}]
    for reranker in (None, tiny_reranker):
        retriever = Retriever(tiny_embedder, store, reranker, candidates=6)
        many = retriever.search_many(queries, 4)
        async_hits = asyncio.run(retriever.asearch_many(queries, 4))
        for query, hits, others in zip(queries, many, async_hits, strict=True):
            single = retriever.search(query, 4)
            assert len(single) == 4
            for same in (hits, others):
                assert [hit.id for hit in same] == [hit.id for hit in single]
                np.testing.assert_allclose([hit.score for hit in same], [hit.score for hit in single], atol=1e-5)
            assert all((hit.rerank_score is None) == (reranker is None) for hit in single)
    assert [hits[0].document.source for hits in many[6:9]] == [str(path) for path, _ in library[6:9]]


def test_pages_of_reranked_hits_are_parts_of_one_ranking(
    library: Scenes, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    retriever = Retriever(tiny_embedder, store, tiny_reranker, candidates=12)
    query = library[3][1].caption()
    ranking = retriever.search(query, 12)
    pages = [hit.id for offset in (0, 4, 8) for hit in retriever.search(query, 4, offset=offset)]
    assert pages == [hit.id for hit in ranking]
    by_vectors = Retriever(tiny_embedder, store)
    assert retriever.rerank(query, by_vectors.search(query, 12)) == ranking
    assert asyncio.run(retriever.arerank(query, by_vectors.search(query, 12))) == ranking
    assert by_vectors.rerank(query, ranking) == ranking
    threshold = sum(sorted(hit.score for hit in ranking)[5:7]) / 2
    above = retriever.search(query, 12, threshold=threshold)
    assert {hit.id for hit in above} == {hit.id for hit in ranking if hit.score >= threshold}
    assert [hit.document.source for hit in retriever.search(query, 5, where={"source": str(library[7][0])})] == [
        str(library[7][0])
    ]


def test_unusable_query_is_an_error_beside_the_hits_of_others(
    library: Scenes, store: Store, tiny_embedder: Embedder
) -> None:
    retriever = Retriever(tiny_embedder, store)
    with pytest.raises(InputError, match=r"nowhere\.png.*does not exist"):
        retriever.search({"image": "/nowhere.png"})
    query = library[0][1].caption()
    with pytest.raises(BatchError) as caught:
        retriever.search_many([query, {"image": "/nowhere.png"}, query], 2)
    assert [error.index for error in caught.value.errors] == [1]
    first, second, third = caught.value.results
    assert [hit.id for hit in first] == [hit.id for hit in third] == [hit.id for hit in retriever.search(query, 2)]
    assert second == []
    with pytest.raises(ValueError, match="limit"):
        retriever.search(query, 0)


def test_async_retriever_searches_an_async_store(
    library: Scenes, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    async def work() -> list[Any]:
        store = AsyncQdrantStore(AsyncQdrantClient(":memory:"))
        retriever = AsyncRetriever(tiny_embedder, store, tiny_reranker)
        with pytest.raises(RecipeError, match="nothing was indexed"):
            await retriever.asearch("a red star")
        await aingest(Loader().load([library[0][0].parent]), tiny_embedder, store)
        return await asyncio.gather(*(retriever.asearch(scene.caption(), 1) for _, scene in library[:5]))

    results = asyncio.run(work())
    assert sum(hits[0].document.source == str(path) for hits, (path, _) in zip(results, library, strict=False)) >= 4


def test_retriever_rejects_an_async_store(tiny_embedder: Embedder) -> None:
    store: Any = AsyncQdrantStore(AsyncQdrantClient(":memory:"))
    with pytest.raises(TypeError, match="use AsyncRetriever"):
        Retriever(tiny_embedder, store)
    assert not hasattr(AsyncRetriever(tiny_embedder, store), "search")


async def test_async_retriever_searches_a_blocking_store(
    library: Scenes, store: Store, tiny_embedder: Embedder
) -> None:
    query = library[0][1].caption()
    hits = await AsyncRetriever(tiny_embedder, store).asearch(query, 3)
    assert [hit.id for hit in hits] == [hit.id for hit in Retriever(tiny_embedder, store).search(query, 3)]


async def test_concurrent_searches_share_forward_passes(
    library: Scenes, store: Store, tiny_embedder: Embedder, checkpoints: Path
) -> None:
    retriever = AsyncRetriever(tiny_embedder, store)
    queries = [scene.caption() for _, scene in library[:30]]
    calls = [retriever.asearch(query, 2) for query in queries]
    hits, num_passes = await await_while_busy(checkpoints / "embedding", tiny_embedder.engine, calls, 30)
    assert num_passes < 5
    expected = Retriever(tiny_embedder, store).search_many(queries, 2)
    assert [[hit.id for hit in found] for found in hits] == [[hit.id for hit in found] for found in expected]


async def test_rerankings_of_queries_share_forward_passes(
    library: Scenes, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    forward = GatedForward()
    reranker = with_stages(Reranker("tiny", device="cpu"), {"forward": forward})
    queries = [scene.caption() for _, scene in library[:10]]
    where = {"source": [str(path) for path, _ in library[:2]]}
    retriever = Retriever(tiny_embedder, store, reranker)
    search = asyncio.ensure_future(retriever.asearch_many(queries, 2, where=where))
    assert await asyncio.to_thread(forward.started.wait, 60)
    await until_ready(reranker.engine, 20 - forward.num_prompts[0])
    forward.resume.set()
    hits = await search
    assert len(forward.num_prompts) < 5
    expected = Retriever(tiny_embedder, store, tiny_reranker).search_many(queries, 2, where=where)
    for found, others in zip(hits, expected, strict=True):
        assert [hit.id for hit in found] == [hit.id for hit in others]
        assert_close([hit.rerank_score for hit in found], [hit.rerank_score for hit in others])


async def test_query_that_cannot_be_reranked_cancels_the_other_rerankings(
    library: Scenes, store: Store, tiny_embedder: Embedder
) -> None:
    """The search ends although the device, which is busy with the first query, never gets to the others."""
    forward = GatedForward()
    policy = MediaPolicy(folders=())
    reranker = with_stages(Reranker("tiny", device="cpu", policy=policy), {"forward": forward})
    retriever = AsyncRetriever(tiny_embedder, store, reranker)
    blocking = asyncio.ensure_future(reranker.ascore("a query", ["a document"]))
    assert await asyncio.to_thread(forward.started.wait, 60)
    hits = [Hit(str(number), Document("a.md", "text", text=f"text {number}"), 1.0) for number in range(3)]
    queries: list[Any] = ["a red star", {"image": str(library[0][0])}, "a blue circle"]
    async with asyncio.timeout(20):
        with pytest.raises(InputError, match="the query") as caught:
            await retriever._arerank_all(queries, [hits] * 3)
    assert isinstance(caught.value.__cause__, PolicyError)
    assert not forward.resume.is_set()
    forward.resume.set()
    await blocking
    assert forward.num_prompts == [1]


def test_one_per_is_a_deprecated_name_of_group_by(store: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, store)
    options: dict[str, Any] = {"one_per": "kind"}
    with pytest.deprecated_call(match="use 'group_by'"):
        (hit,) = retriever.search("a red star", 5, **options)
    assert [hit.id] == [same.id for same in retriever.search("a red star", 5, group_by="kind")]


OPTIONS = "unknown search option 'filter'; the options are limit, where, offset, threshold, group_by, exact"


def test_unknown_search_option_is_an_error_that_names_the_options(store: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, store)
    vector = tiny_embedder.embed("a red star")[0]
    options: dict[str, Any] = {"filter": {"kind": "page"}}
    with pytest.raises(TypeError, match=OPTIONS):
        retriever.search("a red star", 5, **options)
    with pytest.raises(TypeError, match=OPTIONS):
        retriever.search_many(["a red star"], 5, **options)
    with pytest.raises(TypeError, match=OPTIONS):
        asyncio.run(retriever.asearch("a red star", 5, **options))
    with pytest.raises(TypeError, match=OPTIONS):
        store.search(vector, 5, **options)
    with pytest.raises(TypeError, match=OPTIONS):
        asyncio.run(store.asearch(vector, 5, **options))
    with pytest.raises(TypeError, match=OPTIONS):
        Search(vector, **options)


def test_query_with_a_lone_surrogate_is_an_error_that_names_its_position(store: Store, tiny_embedder: Embedder) -> None:
    with pytest.raises(InputError, match=r"the query .*lone surrogate at character 2, U\+D83D"):
        Retriever(tiny_embedder, store).search("a \ud83d")
    with pytest.raises(InputError, match=r"the instruction has a lone surrogate at character 0"):
        Retriever(tiny_embedder, store, instruction="\ud83d").search("a")

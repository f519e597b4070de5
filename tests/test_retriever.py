"""One query or many, waited for or awaited: the same hits, judged by the reranker with the media themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient
from qwen3vl_qdrant import QdrantStore

from qwen3vl import (
    BatchError,
    Embedder,
    InputError,
    RecipeError,
    Reranker,
    Retriever,
    Store,
    aingest,
    ingest,
    open_store,
)
from qwen3vl.demo.scenes import Scene
from qwen3vl.loaders import Loader
from tests.test_ingest import draw

EmbedResult = list[tuple[Path, Scene]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> EmbedResult:
    return draw(tmp_path_factory.mktemp("library"), 40, seed=21)


@pytest.fixture(scope="module")
def store(library: EmbedResult, tiny_embedder: Embedder) -> Iterator[Store]:
    opened = open_store(":memory:")
    ingest(Loader().load([library[0][0].parent]), tiny_embedder, opened)
    yield opened
    opened.close()


def test_many_equal_one_by_one(
    library: EmbedResult, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    random = Random(2)
    queries: list[Any] = [scene.caption(random.randrange(3)) for _, scene in library[:6]]
    queries += [{"image": Scene(scene.things, 1).draw(random)} for _, scene in library[6:9]]
    queries += [{"text": "a red star", "image": library[9][1].draw(random)}]
    for reranker in (None, tiny_reranker):
        retriever = Retriever(tiny_embedder, store, reranker, candidates=6)
        many = retriever.search_many(queries, 4)
        awaited = asyncio.run(retriever.asearch_many(queries, 4))
        for query, hits, others in zip(queries, many, awaited, strict=True):
            alone = retriever.search(query, 4)
            assert len(alone) == 4
            for some in (hits, others):
                assert [hit.id for hit in some] == [hit.id for hit in alone]
                np.testing.assert_allclose([hit.score for hit in some], [hit.score for hit in alone], atol=1e-5)
            assert all((hit.rerank_score is None) == (reranker is None) for hit in alone)
    assert [hits[0].document.source for hits in many[6:9]] == [str(path) for path, _ in library[6:9]]


def test_pages_of_reranked_hits(
    library: EmbedResult, store: Store, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    retriever = Retriever(tiny_embedder, store, tiny_reranker, candidates=12)
    query = library[3][1].caption()
    whole = retriever.search(query, 12)
    pages = [hit.id for offset in (0, 4, 8) for hit in retriever.search(query, 4, offset=offset)]
    assert pages == [hit.id for hit in whole]
    edge = sum(sorted(hit.score for hit in whole)[5:7]) / 2
    above = retriever.search(query, 12, threshold=edge)
    assert {hit.id for hit in above} == {hit.id for hit in whole if hit.score >= edge}
    assert [hit.document.source for hit in retriever.search(query, 5, where={"source": str(library[7][0])})] == [
        str(library[7][0])
    ]


def test_a_query_that_cannot_be_used(library: EmbedResult, store: Store, tiny_embedder: Embedder) -> None:
    retriever = Retriever(tiny_embedder, store)
    with pytest.raises(InputError, match=r"nowhere\.png.*does not exist"):
        retriever.search({"image": "/nowhere.png"})
    good = library[0][1].caption()
    with pytest.raises(BatchError) as caught:
        retriever.search_many([good, {"image": "/nowhere.png"}, good], 2)
    assert [error.index for error in caught.value.errors] == [1]
    first, second, third = caught.value.results
    assert [hit.id for hit in first] == [hit.id for hit in third] == [hit.id for hit in retriever.search(good, 2)]
    assert second == []
    with pytest.raises(ValueError, match="limit"):
        retriever.search(good, 0)


def test_a_store_that_is_awaited(library: EmbedResult, tiny_embedder: Embedder, tiny_reranker: Reranker) -> None:
    async def work() -> list[Any]:
        store = QdrantStore(AsyncQdrantClient(":memory:"))
        retriever = Retriever(tiny_embedder, store, tiny_reranker)
        with pytest.raises(RecipeError, match="nothing was indexed"):
            await retriever.asearch("a red star")
        await aingest(Loader().load([library[0][0].parent]), tiny_embedder, store)
        return await asyncio.gather(*(retriever.asearch(scene.caption(), 1) for _, scene in library[:5]))

    found = asyncio.run(work())
    assert sum(hits[0].document.source == str(path) for hits, (path, _) in zip(found, library, strict=False)) >= 4

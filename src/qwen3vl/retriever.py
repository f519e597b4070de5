"""A query, a store, and perhaps a second opinion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import BatchError, InputError, RecipeError
from qwen3vl.inputs import Input
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Hit, Search, Store

if TYPE_CHECKING:  # torch comes with a model, not with a retriever
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker
    from qwen3vl.results import Batch

_NO_VECTOR = np.zeros(0, dtype=np.float32)


class Retriever:
    """Searches a store by text, picture, clip or a mixture; a reranker judges what was found, media included.

    candidates: how many hits the reranker sees, at least.
    instruction: for queries, where it differs from that of the documents; rerank_instruction: the reranker's.

    One object may be used by many threads and event loops at once.
    """

    def __init__(
        self,
        embedder: Embedder,
        store: Store,
        reranker: Reranker | None = None,
        *,
        candidates: int = 20,
        instruction: str | None = None,
        rerank_instruction: str | None = None,
    ) -> None:
        self.embedder = embedder
        self.store = store
        self.reranker = reranker
        self.candidates = candidates
        self.instruction = instruction
        self.rerank_instruction = rerank_instruction
        self._checked = False
        if not store.awaited:
            self._check(store.recipe())

    def search(self, query: Input, limit: int = 10, **options: Any) -> list[Hit]:
        """The best hits for one query, best first; options as for `search_many`.

        Raises `InputError` where the query cannot be used.
        """
        try:
            return self.search_many([query], limit, **options)[0]
        except BatchError as error:
            raise _unusable(error) from error

    async def asearch(self, query: Input, limit: int = 10, **options: Any) -> list[Hit]:
        """`search` without blocking the event loop."""
        try:
            return (await self.asearch_many([query], limit, **options))[0]
        except BatchError as error:
            raise _unusable(error) from error

    def search_many(self, queries: Sequence[Input], limit: int = 10, **options: Any) -> list[list[Hit]]:
        """The best hits of each query, in the order of the queries.

        where: a filter, as `qwen3vl.stores.Where` or of the store's own kind.
        offset: hits to pass over; threshold: the least cosine.
        one_per: a metadata key such as "source": only the best hit of each value.

        A hit that the reranker cannot read keeps its place behind those that it can, without a rerank score.

        Raises `BatchError`, when all others are done, where a query cannot be used; the hits of the others are
        its `results`.
        """
        page = Search(_NO_VECTOR, limit, **options)
        self._check(None if self._checked else self.store.recipe())
        asked = self._embed(queries)
        found = iter(self.store.search_many(self._searches(asked, page)))
        return _settled(asked, self._judge(queries, asked, found, page))

    async def asearch_many(self, queries: Sequence[Input], limit: int = 10, **options: Any) -> list[list[Hit]]:
        """`search_many` without blocking the event loop."""
        page = Search(_NO_VECTOR, limit, **options)
        self._check(None if self._checked else await self.store.arecipe())
        asked = await run_in_executor(self._embed, queries)
        found = iter(await self.store.asearch_many(self._searches(asked, page)))
        return _settled(asked, await run_in_executor(self._judge, queries, asked, found, page))

    def _check(self, stored: Recipe | None) -> None:
        if self._checked:
            return
        if stored is None:
            raise RecipeError(f"{self.store.name} is empty: nothing was indexed into it yet")
        self.embedder.recipe.check(stored, self.store.name)
        self._checked = True

    def _embed(self, queries: Sequence[Input]) -> Batch:
        return self.embedder.embed(queries, instruction=self.instruction, on_error="collect")

    def _searches(self, asked: Batch, page: Search) -> list[Search]:
        """The searches of the queries that can be used.  A reranker has to see all pages up to the one wanted."""
        if self.reranker is not None:
            page = replace(page, limit=max(page.limit + page.offset, self.candidates), offset=0)
        return [replace(page, vector=vector) for vector, ok in zip(asked.values, asked.ok, strict=True) if ok]

    def _judge(
        self, queries: Sequence[Input], asked: Batch, found: Iterator[list[Hit]], page: Search
    ) -> list[list[Hit]]:
        answers = [next(found) if ok else [] for ok in asked.ok]
        if self.reranker is None:
            return answers
        judged = [self._rerank(self.reranker, query, hits) for query, hits in zip(queries, answers, strict=True)]
        return [hits[page.offset : page.offset + page.limit] for hits in judged]

    def _rerank(self, reranker: Reranker, query: Input, hits: list[Hit]) -> list[Hit]:
        if not hits:
            return hits
        documents = [hit.document.input for hit in hits]
        judged = reranker.score(query, documents, instruction=self.rerank_instruction, on_error="collect")
        scored = [
            replace(hit, rerank_score=float(score)) if good else hit
            for hit, score, good in zip(hits, judged.values, judged.ok, strict=True)
        ]
        return sorted(scored, key=lambda hit: (hit.rerank_score is None, -(hit.rerank_score or 0)))


def _settled(asked: Batch, answers: list[list[Hit]]) -> list[list[Hit]]:
    if asked.errors:
        raise BatchError(asked.errors, answers)
    return answers


def _unusable(error: BatchError) -> InputError:
    (first,) = error.errors
    return InputError(f"the query ({first.source}): {first.reason}")

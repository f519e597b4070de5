"""`Retriever` and `AsyncRetriever`: an embedder, a store and perhaps a reranker as one search."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.errors import BatchError, InputError, RecipeError, query_error
from qwen3vl.inputs import Input, aparse
from qwen3vl.query_words import QueryWords
from qwen3vl.recipe import Recipe
from qwen3vl.stores import AsyncStore, Hit, Search, SearchOptions, Store

if TYPE_CHECKING:
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker
    from qwen3vl.results import Batch, RankedDocument

_NO_VECTOR = np.zeros(0, dtype=np.float32)


class AsyncRetriever:
    """Searches a store by text, image, video or a mixture, without blocking the event loop.

    Waiting for the models occupies no thread, and the queries of all searches are packed into common batches. One
    object may be used by many threads and event loops at once.

    Args:
        embedder: Embeds the queries; its recipe has to be the store's.
        store: Where to search: an `AsyncStore` or a `Store`.
        reranker: Scores the best hits by their text and media; None returns the store's hits.
        candidates: Minimum number of hits that the reranker scores.
        instruction: Instruction for embedding queries, if it differs from that of the documents.
        rerank_instruction: What makes a document relevant; None is the reranker's instruction.

    Example:
        ```python
        retriever = AsyncRetriever(Embedder(), AsyncQdrantStore(AsyncQdrantClient(url="http://localhost:6333")))
        hits = await retriever.asearch("a red circle on the left", 5)
        ```
    """

    def __init__(
        self,
        embedder: Embedder,
        store: AsyncStore,
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
        self._recipe_checked = False

    @renamed_arguments(one_per="group_by")
    async def asearch(self, query: Input, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """Return the best hits for one query.

        Args:
            query: An input as `Embedder.embed` accepts it.
            limit: Maximum number of hits.
            **options: As for `asearch_many`.

        Returns:
            The hits, best first.

        Raises:
            InputError: The query cannot be used.
            RecipeError: Nothing was ingested into the store, or with another recipe.
        """
        try:
            return (await self.asearch_many([query], limit, **options))[0]
        except BatchError as error:
            raise _to_query_error(error) from error

    @renamed_arguments(one_per="group_by")
    async def asearch_many(
        self, queries: Sequence[Input], limit: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Return the best hits of each query, in the order of the queries.

        A hit that the reranker cannot read comes after the others, without a rerank score and with the reason.

        Args:
            queries: Inputs as `Embedder.embed` accepts them.
            limit: Maximum number of hits of each query.
            **options: `where` (a `Where`, or a filter of the database's own type), `offset` (number of hits to
                skip), `threshold` (minimum cosine), `group_by` (a metadata key such as `"source"`: only the best
                hit of each value), `exact` (without an index), `mode` (`"dense"`, `"text"` or `"hybrid"`), `alpha`
                (share of the vectors in a hybrid search); see `Search`.

        Returns:
            The hits of each query, best first.

        Raises:
            BatchError: Queries cannot be used. Its `results` are the hits of all queries, none for these.
            RecipeError: Nothing was ingested into the store, or with another recipe.
            StoreError: The store fails, or cannot be searched in this mode.
        """
        search = Search(_NO_VECTOR, limit, **options)
        if not self._recipe_checked:
            self._check_recipe(await self.store.arecipe())
        words = await aparse(partial(QueryWords, queries, search.mode), *queries)
        vectors = words.without_vectors
        if search.mode != "text":
            vectors = words.check(await self.embedder.aembed(queries, **self._embed_options))
        hits = _hits_by_query(vectors, await self.store.asearch_many(self._searches(vectors, words, search)))
        if self.reranker is not None:
            hits = [_page(reranked, search) for reranked in await self._arerank_all(queries, hits)]
        return _raise_query_errors(vectors, hits)

    def _check_recipe(self, stored: Recipe | None) -> None:
        if stored is None:
            raise RecipeError(f"{self.store.name} is empty: nothing was indexed into it yet")
        self.embedder.recipe.check(stored, self.store.name)
        self._recipe_checked = True

    def _searches(self, vectors: Batch, words: QueryWords, search: Search) -> list[Search]:
        """Return a search for each query that can be used."""
        if self.reranker is not None:
            # The order is the reranker's, so that it has to see the pages before the requested one as well.
            search = replace(search, limit=max(search.limit + search.offset, self.candidates), offset=0)
        rows = zip(vectors.values, words.texts, vectors.ok, strict=True)
        return [replace(search, vector=vector, text=text) for vector, text, ok in rows if ok]

    async def arerank(self, query: Input, hits: list[Hit]) -> list[Hit]:
        """Let the reranker score hits, however they were found.

        Args:
            query: An input as `Reranker.score` accepts it.
            hits: Hits of the store.

        Returns:
            The hits with the reranker's scores, best first; those that it cannot read come last, with the reason.
            Without a reranker, the hits as they are.

        Raises:
            InputError: The query cannot be used.
        """
        if self.reranker is None or not hits:
            return hits
        return _in_order(hits, await self.reranker.arank(query, _inputs(hits), **self._rank_options))

    async def _arerank_all(self, queries: Sequence[Input], hits: Sequence[list[Hit]]) -> list[list[Hit]]:
        try:
            async with asyncio.TaskGroup() as group:  # the first error cancels the other rerankings
                tasks = [
                    group.create_task(self.arerank(query, query_hits))
                    for query, query_hits in zip(queries, hits, strict=True)
                ]
        except ExceptionGroup as errors:
            first = errors.exceptions[0]
            raise first from first.__cause__
        return [task.result() for task in tasks]

    @property
    def _embed_options(self) -> dict[str, Any]:
        return {"instruction": self.instruction, "on_error": "collect"}

    @property
    def _rank_options(self) -> dict[str, Any]:
        return {"instruction": self.rerank_instruction, "on_error": "collect"}


class Retriever(AsyncRetriever):
    """Searches a store by text, image, video or a mixture; a reranker may score the hits by their text and media.

    It has the methods of `AsyncRetriever` and blocking ones. The recipe is checked when it is created. One object may
    be used by many threads and event loops at once.

    Args:
        embedder: Embeds the queries; its recipe has to be the store's.
        store: Where to search.
        reranker: Scores the best hits by their text and media; None returns the store's hits.
        candidates: Minimum number of hits that the reranker scores.
        instruction: Instruction for embedding queries, if it differs from that of the documents.
        rerank_instruction: What makes a document relevant; None is the reranker's instruction.

    Raises:
        TypeError: The store is asynchronous.
        RecipeError: Nothing was ingested into the store, or with another recipe.

    Example:
        ```python
        retriever = Retriever(Embedder(), open_store("library.qdrant"), Reranker())
        hits = retriever.search({"image": "sketch.png", "text": "at night"}, 5, where={"kind": "picture"})
        ```
    """

    store: Store

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
        if not isinstance(store, Store):
            raise TypeError(f"Retriever needs a Store, and {type(store).__name__} is asynchronous: use AsyncRetriever")
        super().__init__(
            embedder,
            store,
            reranker,
            candidates=candidates,
            instruction=instruction,
            rerank_instruction=rerank_instruction,
        )
        self._check_recipe(store.recipe())

    @renamed_arguments(one_per="group_by")
    def search(self, query: Input, limit: int = 10, **options: Unpack[SearchOptions]) -> list[Hit]:
        """Return the best hits for one query.

        Args:
            query: An input as `Embedder.embed` accepts it.
            limit: Maximum number of hits.
            **options: As for `asearch_many`.

        Returns:
            The hits, best first.

        Raises:
            InputError: The query cannot be used.
        """
        try:
            return self.search_many([query], limit, **options)[0]
        except BatchError as error:
            raise _to_query_error(error) from error

    @renamed_arguments(one_per="group_by")
    def search_many(
        self, queries: Sequence[Input], limit: int = 10, **options: Unpack[SearchOptions]
    ) -> list[list[Hit]]:
        """Return the best hits of each query, in the order of the queries.

        A hit that the reranker cannot read comes after the others, without a rerank score and with the reason.

        Args:
            queries: Inputs as `Embedder.embed` accepts them.
            limit: Maximum number of hits of each query.
            **options: As for `asearch_many`.

        Returns:
            The hits of each query, best first.

        Raises:
            BatchError: Queries cannot be used. Its `results` are the hits of all queries, none for these.
        """
        search = Search(_NO_VECTOR, limit, **options)
        words = QueryWords(queries, search.mode)
        vectors = words.without_vectors
        if search.mode != "text":
            vectors = words.check(self.embedder.embed(queries, **self._embed_options))
        hits = _hits_by_query(vectors, self.store.search_many(self._searches(vectors, words, search)))
        if self.reranker is not None:
            pairs = zip(queries, hits, strict=True)
            hits = [_page(self.rerank(query, query_hits), search) for query, query_hits in pairs]
        return _raise_query_errors(vectors, hits)

    def rerank(self, query: Input, hits: list[Hit]) -> list[Hit]:
        """Let the reranker score hits, however they were found.

        Args:
            query: As for `arerank`.
            hits: As for `arerank`.

        Returns:
            As from `arerank`.
        """
        if self.reranker is None or not hits:
            return hits
        return _in_order(hits, self.reranker.rank(query, _inputs(hits), **self._rank_options))


def _hits_by_query(vectors: Batch, hits: Iterable[list[Hit]]) -> list[list[Hit]]:
    """Return the hits of each query, with an empty list for those that were not embedded."""
    remaining = iter(hits)
    return [next(remaining) if ok else [] for ok in vectors.ok]


def _inputs(hits: Sequence[Hit]) -> list[Input]:
    return [hit.document.input for hit in hits]


def _in_order(hits: Sequence[Hit], ranking: Iterable[RankedDocument]) -> list[Hit]:
    """Return hits in the order of a ranking, with its scores and errors."""
    return [
        replace(
            hits[ranked.index],
            rerank_score=ranked.score,
            rerank_error=None if ranked.error is None else ranked.error.reason,
        )
        for ranked in ranking
    ]


def _page(reranked: list[Hit], search: Search) -> list[Hit]:
    """Return the hits that were asked for; before the reranking, those on the pages before were needed as well."""
    return reranked[search.offset : search.offset + search.limit]


def _raise_query_errors(vectors: Batch, results: list[list[Hit]]) -> list[list[Hit]]:
    if vectors.errors:
        raise BatchError(vectors.errors, results)
    return results


def _to_query_error(error: BatchError) -> InputError:
    (first,) = error.errors
    return query_error(first.source, first.reason)

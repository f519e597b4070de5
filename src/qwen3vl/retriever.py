"""`Retriever` and `AsyncRetriever`: an embedder, a store and perhaps a reranker as one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import numpy as np

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import BatchError, InputError, RecipeError, query_error
from qwen3vl.inputs import Input
from qwen3vl.recipe import Recipe
from qwen3vl.stores import AsyncStore, Hit, Search, SearchOptions, Store

if TYPE_CHECKING:  # torch is imported with a model
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker
    from qwen3vl.results import Batch

_NO_VECTOR = np.zeros(0, dtype=np.float32)


class AsyncRetriever:
    """Searches a store by text, image, video or a mixture, without blocking the event loop.

    The models run in threads. One object may be used by many threads and event loops at once.

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
                hit of each value).

        Returns:
            The hits of each query, best first.

        Raises:
            BatchError: Queries cannot be used. Its `results` are the hits of all queries, none for these.
            RecipeError: Nothing was ingested into the store, or with another recipe.
        """
        search = Search(_NO_VECTOR, limit, **options)
        if not self._recipe_checked:
            self._check_recipe(await self.store.arecipe())
        vectors = await run_in_executor(self._embed, queries)
        hits = await self.store.asearch_many(self._searches(vectors, search))
        results = await run_in_executor(self._rerank_all, queries, vectors, hits, search)
        return _raise_query_errors(vectors, results)

    def _check_recipe(self, stored: Recipe | None) -> None:
        if stored is None:
            raise RecipeError(f"{self.store.name} is empty: nothing was indexed into it yet")
        self.embedder.recipe.check(stored, self.store.name)
        self._recipe_checked = True

    def _embed(self, queries: Sequence[Input]) -> Batch:
        return self.embedder.embed(queries, instruction=self.instruction, on_error="collect")

    def _searches(self, vectors: Batch, search: Search) -> list[Search]:
        """Return a search for each query that was embedded."""
        if self.reranker is not None:
            # The order is the reranker's, so that it has to see the pages before the requested one as well.
            search = replace(search, limit=max(search.limit + search.offset, self.candidates), offset=0)
        return [replace(search, vector=vector) for vector, ok in zip(vectors.values, vectors.ok, strict=True) if ok]

    def _rerank_all(
        self, queries: Sequence[Input], vectors: Batch, hits: list[list[Hit]], search: Search
    ) -> list[list[Hit]]:
        """Return the final hits of each query, with an empty list for those that were not embedded."""
        remaining = iter(hits)
        results = [next(remaining) if ok else [] for ok in vectors.ok]
        if self.reranker is None:
            return results
        reranked = [self._rerank(self.reranker, *pair) for pair in zip(queries, results, strict=True)]
        return [query_hits[search.offset : search.offset + search.limit] for query_hits in reranked]

    def _rerank(self, reranker: Reranker, query: Input, hits: list[Hit]) -> list[Hit]:
        if not hits:
            return hits
        documents = [hit.document.input for hit in hits]
        ranking = reranker.rank(query, documents, instruction=self.rerank_instruction, on_error="collect")
        return [
            replace(
                hits[ranked.index],
                rerank_score=ranked.score,
                rerank_error=None if ranked.error is None else ranked.error.reason,
            )
            for ranked in ranking
        ]


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
        vectors = self._embed(queries)
        hits = self.store.search_many(self._searches(vectors, search))
        return _raise_query_errors(vectors, self._rerank_all(queries, vectors, hits, search))


def _raise_query_errors(vectors: Batch, results: list[list[Hit]]) -> list[list[Hit]]:
    if vectors.errors:
        raise BatchError(vectors.errors, results)
    return results


def _to_query_error(error: BatchError) -> InputError:
    (first,) = error.errors
    return query_error(first.source, first.reason)

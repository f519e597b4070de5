"""Searches with the queries of an evaluation: each is embedded once per instruction, each pair is reranked once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from qwen3vl.errors import InputError
from qwen3vl.evaluation.queries import EvalQuery
from qwen3vl.evaluation.settings import Setting
from qwen3vl.evaluation.truncated import search_truncated
from qwen3vl.query_words import QueryWords
from qwen3vl.retriever import Retriever
from qwen3vl.stores import Hit, Search, Store

if TYPE_CHECKING:
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker
    from qwen3vl.results import Batch

_SEARCHES_PER_REQUEST = 32


class Searcher:
    """Searches stores with the same queries in many settings.

    Args:
        queries: The queries.
        stores: Stores by name; their recipes have to be the embedder's.
        embedder: Embeds the queries.
        reranker: Scores hits, in settings with candidates.
        limit: Number of hits of each query.
        progress: Whether to show progress bars.

    Attributes:
        failed: Why a query cannot be used, by its index.

    Raises:
        RecipeError: A store is empty, or was written with another recipe.
    """

    def __init__(
        self,
        queries: Sequence[EvalQuery],
        stores: Mapping[str, Store],
        embedder: Embedder,
        reranker: Reranker | None = None,
        *,
        limit: int = 10,
        progress: bool = False,
    ) -> None:
        self._queries = queries
        self._retrievers = {name: Retriever(embedder, store, reranker) for name, store in stores.items()}
        self._texts = QueryWords([query.input for query in queries], None).texts
        self._limit = limit
        self._progress = progress
        self._vectors: dict[str | None, Batch] = {}
        self._reranked: dict[tuple[str | None, int], dict[str, Hit]] = {}
        self.failed: dict[int, str] = {}

    @property
    def unscored(self) -> dict[str, str]:
        """Why the reranker could not score a document, by its name."""
        hits = (hit for scored in self._reranked.values() for hit in scored.values())
        return {hit.document.name: hit.rerank_error for hit in hits if hit.rerank_error is not None}

    def search(self, setting: Setting) -> list[list[Hit]]:
        """Return the hits of each query, as a `Retriever` with the same settings returns them.

        Args:
            setting: How to search.

        Returns:
            At most `limit` hits of each query, best first; none for queries in `failed`, and in mode `"text"` for those
            without a text.

        Raises:
            StoreError: A store fails, or cannot be searched in the setting's mode.
        """
        hits = self._find(setting)
        if setting.candidates is not None:
            hits = [self._rerank(setting, index, hits[index]) for index in self._track(range(len(hits)), setting.name)]
        return [query_hits[: self._limit] for query_hits in hits]

    def _find(self, setting: Setting) -> list[list[Hit]]:
        """Return the hits of each query before reranking."""
        store = self._retrievers[setting.store].store
        limit = max(self._limit, setting.candidates or 0)
        vectors = np.zeros((len(self._queries), 0), dtype=np.float32)
        if setting.mode != "text":
            vectors = self._embed(setting.instruction)
        usable = [
            index
            for index in range(len(self._queries))
            if index not in self.failed and (setting.mode != "text" or self._texts[index].strip())
        ]
        hits: list[list[Hit]] = [[] for _ in self._queries]
        if setting.dimensions is not None:
            kinds = [self._queries[index].kinds for index in usable]
            found = search_truncated(store, vectors[usable], setting.dimensions, limit, kinds)
        else:
            searches = [self._to_search(setting, index, vectors[index], limit) for index in usable]
            starts = self._track(range(0, len(searches), _SEARCHES_PER_REQUEST), setting.name)
            requests = (store.search_many(searches[start : start + _SEARCHES_PER_REQUEST]) for start in starts)
            found = [query_hits for results in requests for query_hits in results]
        for index, query_hits in zip(usable, found, strict=True):
            hits[index] = query_hits
        return hits

    def _to_search(self, setting: Setting, index: int, vector: Any, limit: int) -> Search:
        text = self._texts[index]
        # A hybrid search of a query without a text is the search by its vector.
        mode = setting.mode if text.strip() else "dense"
        kinds = self._queries[index].kinds
        where = {"kind": list(kinds)} if kinds else None
        return Search(vector, limit, where=where, exact=setting.exact, mode=mode, text=text)

    def _embed(self, instruction: str | None) -> Any:
        """Return the vectors of all queries; those that fail are noted."""
        if instruction not in self._vectors:
            embedder = next(iter(self._retrievers.values())).embedder
            inputs = [query.input for query in self._queries]
            batch = embedder.embed(inputs, instruction=instruction, progress=self._progress, on_error="collect")
            self._vectors[instruction] = batch
            for error in batch.errors:
                self.failed.setdefault(error.index, f"{error.source}: {error.reason}")
        return self._vectors[instruction].values

    def _rerank(self, setting: Setting, index: int, hits: list[Hit]) -> list[Hit]:
        """Return hits in the order of the reranker, which scores those that it has not scored for the query before."""
        scored = self._reranked.setdefault((setting.rerank_instruction, index), {})
        new_hits = [hit for hit in hits if hit.id not in scored]
        retriever = self._retrievers[setting.store]
        retriever.rerank_instruction = setting.rerank_instruction
        try:
            scored |= {hit.id: hit for hit in retriever.rerank(self._queries[index].input, new_hits)}
        except InputError as error:
            self.failed.setdefault(index, str(error))
            return []
        rescored = [
            replace(hit, rerank_score=scored[hit.id].rerank_score, rerank_error=scored[hit.id].rerank_error)
            for hit in hits
        ]
        return sorted(rescored, key=lambda hit: (hit.rerank_score is None, -(hit.rerank_score or 0.0)))

    def _track(self, indices: range, description: str) -> Any:
        return tqdm(indices, desc=description, leave=False) if self._progress else indices

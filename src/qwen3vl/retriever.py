"""A query, a store, and perhaps a second opinion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qwen3vl.documents import Kind
from qwen3vl.embedder import Embedder
from qwen3vl.errors import InputError, RecipeError
from qwen3vl.inputs import Input
from qwen3vl.reranker import Reranker
from qwen3vl.store import Hit, Store


class Retriever:
    """Searches a store by text, picture, clip or a mixture; a reranker judges what was found, media included.

    candidates: how many hits the reranker sees.
    instruction: for queries, where it differs from that of the documents.
    """

    def __init__(
        self,
        embedder: Embedder,
        store: Store,
        reranker: Reranker | None = None,
        *,
        candidates: int = 20,
        instruction: str | None = None,
    ) -> None:
        stored = store.recipe
        if stored is None:
            raise RecipeError("the store is empty: nothing was indexed into it yet")
        embedder.recipe.check(stored, "the store")
        self.embedder = embedder
        self.store = store
        self.reranker = reranker
        self.candidates = candidates
        self.instruction = instruction

    def search(self, query: Input, limit: int = 10, *, kinds: Sequence[Kind] = ()) -> list[Hit]:
        """The best hits for one query, best first.

        Raises `InputError` where the query cannot be used.  A hit that the reranker cannot read keeps its place
        behind those that it can, without a rerank score.
        """
        asked = self.embedder.embed([query], instruction=self.instruction, on_error="collect")
        if asked.errors:
            (error,) = asked.errors
            raise InputError(f"the query ({error.source}): {error.reason}") from error
        hits = self.store.search(asked.values[0], max(limit, self.candidates) if self.reranker else limit, kinds)
        return _reranked(self.reranker, query, hits)[:limit] if self.reranker and hits else hits


def _reranked(reranker: Reranker, query: Input, hits: list[Hit]) -> list[Hit]:
    judged = reranker.score(query, [hit.document.input for hit in hits], on_error="collect")
    scored = [
        replace(hit, rerank_score=float(score)) if good else hit
        for hit, score, good in zip(hits, judged.values, judged.ok, strict=True)
    ]
    return sorted(scored, key=lambda hit: (hit.rerank_score is None, -(hit.rerank_score or 0)))

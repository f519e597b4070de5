"""Search modes, and the fusion of two rankings of the same points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from qwen3vl.errors import StoreError
from qwen3vl.stores.types import Search

RANK_CONSTANT = 5
"""How slowly a point's share of the score falls with its rank (from 0): to one half at this rank.

With equal shares, only points that are among the first five of both rankings can overtake the first of either. Larger
numbers, such as the usual 60, favour points that are in the middle of both: see docs/qdrant.md.
"""
MIN_CANDIDATES = 100
"""Minimum number of points of each ranking."""


def num_candidates(num_hits: int) -> int:
    """Return how many points of each ranking are fused.

    The pages of one search are consistent as long as this number is the same for them, so it grows in steps.

    Args:
        num_hits: Number of hits that are wanted, those of the pages before included.

    Returns:
        `MIN_CANDIDATES`, doubled until it is enough.
    """
    count = MIN_CANDIDATES
    while count < num_hits:
        count *= 2
    return count


def fuse(
    rankings: Sequence[Sequence[tuple[str, float]]], weights: Sequence[float], depth: int
) -> list[tuple[str, float]]:
    """Fuse rankings by reciprocal ranks. Points with equal scores in a ranking have the mean of their ranks.

    Databases can do that as well, but order points with equal results at random, so that pages overlap.

    Args:
        rankings: Id and score of each point, best first.
        weights: The share of each ranking in the result; they add up to 1.
        depth: Number of points that were requested of each ranking. One that has as many may lack points with the score
            of its last one, so those that it has do not count.

    Returns:
        Id and score of each point, best first: 1 for a point that is the first of all rankings.
    """
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        cut = ranking[-1][1] if len(ranking) >= depth else None
        num_before = 0
        for score, group in groupby(ranking, key=itemgetter(1)):
            ids = [point_id for point_id, _ in group]
            if score == cut:
                break
            rank = num_before + (len(ids) - 1) / 2
            for point_id in ids:
                fused[point_id] = fused.get(point_id, 0.0) + weight * RANK_CONSTANT / (RANK_CONSTANT + rank)
            num_before += len(ids)
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))


def resolve_mode(search: Search, name: str, has_words: bool, words_hint: str) -> Search:
    """Return a search whose mode is one that its collection has.

    Args:
        search: The search. Without a mode it becomes a hybrid search if it has a text and no threshold, which is one of
            cosines, and the collection can be searched by words; else a dense one.
        name: The collection, for messages.
        has_words: Whether it can be searched by words.
        words_hint: How to get a collection that can, for the message.

    Returns:
        The search with a mode.

    Raises:
        StoreError: The collection cannot be searched by words.
        ValueError: A search by words has none.
    """
    has_text = bool(search.text.strip())
    if search.mode is None:
        return replace(search, mode="hybrid" if has_words and has_text and search.threshold is None else "dense")
    if search.mode != "dense" and not has_words:
        raise StoreError(f"{name} cannot be searched with mode={search.mode!r}: {words_hint}")
    if search.mode != "dense" and not has_text:
        raise ValueError(f"mode={search.mode!r} searches by words, and this search has no text")
    return search

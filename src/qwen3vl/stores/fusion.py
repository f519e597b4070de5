"""Search modes, and the fusion of two rankings of the same points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

from qwen3vl.errors import StoreError
from qwen3vl.stores.types import Search

RANK_CONSTANT = 5
"""The constant k of reciprocal rank fusion: the score of a point in a ranking is k / (k + rank), with ranks from 0.

With equal weights, a point comes before the first point of one ranking only if the product of its two ranks is less
than 25, so it is among the first five of a ranking. Larger constants, such as the usual 60, favour points in the middle
of both rankings: see docs/qdrant.md.
"""
MIN_CANDIDATES = 100
"""Minimum number of points that are requested for each ranking."""


def num_candidates(num_hits: int) -> int:
    """Return how many points of each ranking are fused.

    The pages of one search have no hit twice if this number is the same for all of them, so it grows in large steps.

    Args:
        num_hits: Number of hits that are requested, including those of the pages before.

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
    """Fuse rankings by reciprocal rank fusion (RRF). Points with equal scores in a ranking have their mean rank.

    Databases can do that as well, but they order points with equal fused scores at random, so that a point may be on
    two pages of a search.

    Args:
        rankings: Id and score of each point, best first.
        weights: Weight of each ranking; they add up to 1.
        depth: Number of points that were requested for each ranking. A ranking of that many may lack some of the points
            that have the score of its last one, so all points with that score are left out of it, unless they are the
            whole ranking.

    Returns:
        Id and fused score of each point, best first, and those with equal scores in the order of their ids. A point
        that is the first of all rankings has the score 1.
    """
    fused: dict[str, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        cut = ranking[-1][1] if len(ranking) >= depth else None
        num_before = 0
        for score, group in groupby(ranking, key=itemgetter(1)):
            ids = [point_id for point_id, _ in group]
            if score == cut and num_before:  # without points before them, nothing would be left of the ranking
                break
            rank = num_before + (len(ids) - 1) / 2
            for point_id in ids:
                fused[point_id] = fused.get(point_id, 0.0) + weight * RANK_CONSTANT / (RANK_CONSTANT + rank)
            num_before += len(ids)
    return sorted(fused.items(), key=lambda item: (-item[1], item[0]))


def resolve_mode(search: Search, name: str, has_words: bool, words_hint: str) -> Search:
    """Set the mode of a search that has none, or check that the collection can be searched in the search's mode.

    Args:
        search: The search. Without a mode it becomes hybrid if the collection can be searched by words, it has a text,
            and it has no threshold, which only cosines can be compared with; else it becomes dense.
        name: The collection, for messages.
        has_words: Whether the collection can be searched by words.
        words_hint: How to get a collection that can, for the message.

    Returns:
        The search with a mode.

    Raises:
        StoreError: The mode is text or hybrid, and the collection cannot be searched by words.
        ValueError: The mode is text or hybrid, and the search has no text.
    """
    has_text = bool(search.text.strip())
    if search.mode is None:
        return replace(search, mode="hybrid" if has_words and has_text and search.threshold is None else "dense")
    if search.mode != "dense" and not has_words:
        raise StoreError(f"{name} cannot be searched with mode={search.mode!r}: {words_hint}")
    if search.mode != "dense" and not has_text:
        raise ValueError(f"mode={search.mode!r} searches by words, and this search has no text")
    return search

"""The check at the end of `copy_store`: whether a collection has all that another one has."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from qwen3vl.errors import StoreError
from qwen3vl.stores.blocking import Store
from qwen3vl.stores.types import Hit, Search, Vector

_NUM_VECTORS = 100
"""Number of points whose vectors are compared."""
_NUM_SEARCHES = 10
_NUM_HITS = 10
"""Number of hits of each search."""
_TOLERANCE = 1e-4
"""By how much cosines, and the values of normalized vectors, may differ: databases round in different ways."""
_MAX_MISSED = 0.1
"""Fraction of hits that an index may miss."""
_PAGE = 1000
"""Number of ids that are looked up at once."""
_NUM_NAMED = 3
"""Maximum number of ids that a message names."""


def id_pages(store: Store) -> Iterator[list[str]]:
    """Iterate over the ids of all points.

    Args:
        store: The store.

    Yields:
        Some ids.
    """
    page: list[str] = []
    for point in store.scan():
        page.append(point.id)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page


def check_copy(source: Store, destination: Store, on_page: Callable[[int], None]) -> None:
    """Check that a collection has all points of another one.

    Args:
        source: The collection that was copied.
        destination: The copy; it may have more points.
        on_page: Called with the number of points that were looked for.

    Raises:
        StoreError: The collections differ; the message says in what.
    """
    missing: list[str] = []
    sample: list[str] = []
    num_seen = 0
    generator = random.Random(0)
    for ids in id_pages(source):
        present = destination.existing(ids)
        missing += [point_id for point_id in ids if point_id not in present]
        for point_id in ids:  # reservoir sampling: all ids have the same chance
            num_seen += 1
            if len(sample) < _NUM_VECTORS:
                sample.append(point_id)
            elif (index := generator.randrange(num_seen)) < _NUM_VECTORS:
                sample[index] = point_id
        on_page(len(ids))
    expected, actual = source.vectors(sample), destination.vectors(sample)
    unequal = [
        point_id
        for point_id, vector in actual.items()
        if point_id in expected and not _is_same_direction(vector, expected[point_id])
    ]
    differences = [
        *_difference(missing, num_seen, "points are missing"),
        *_difference(unequal, len(sample), "compared points have another vector"),
    ]
    if not differences:
        differences = _compare_searches(source, destination, expected)
    if differences:
        raise StoreError(
            f"the copy in {destination.name} differs from {source.name}: {'; '.join(differences)}. Missing points are "
            "copied by the next run, unless the source was changed meanwhile or its ids are no UUIDs; points that "
            "differ have to be deleted from the copy before"
        )


def _compare_searches(source: Store, destination: Store, vectors: Mapping[str, Vector]) -> list[str]:
    """Search both collections by some of the vectors, and return a sentence for each way in which the hits differ."""
    chosen = [(point_id, vector) for point_id, vector in vectors.items() if vector.any()][:_NUM_SEARCHES]
    exact = [Search(vector, _NUM_HITS, exact=True) for _, vector in chosen]
    expected, actual = source.search_many(exact), destination.search_many(exact)
    lost: list[str] = []
    other: list[str] = []
    for hits, found in zip(expected, actual, strict=True):
        lost += _lost(hits, found)
        documents = {hit.id: hit.document for hit in found}
        # The id does not depend on the metadata: those of points that the copy had before may differ.
        other += [
            hit.id
            for hit in hits
            if hit.id in documents and replace(hit.document, metadata={}) != replace(documents[hit.id], metadata={})
        ]
    # As users search, so by the index and by quantized or short vectors. The nearest point has the same vector.
    nearest = destination.search_many([Search(vector, 1) for _, vector in chosen])
    not_first = [
        point_id
        for (point_id, _), hits in zip(chosen, nearest, strict=True)
        if not hits or hits[0].score < 1 - _TOLERANCE
    ]
    num_hits = sum(map(len, expected))
    max_lost = 0 if destination.core.has_exact_search else _MAX_MISSED * num_hits
    return [
        *_difference(lost if len(lost) > max_lost else [], num_hits, "hits of the same searches are not found"),
        *_difference(
            not_first if len(not_first) > _MAX_MISSED * len(chosen) else [],
            len(chosen),
            "points are not the nearest to their own vector",
        ),
        *_difference(other, num_hits, "hits have another document"),
    ]


def _lost(expected: Sequence[Hit], actual: Sequence[Hit]) -> list[str]:
    """Return the ids of expected hits that are missing and better than the worst of the actual hits.

    Of hits with equal scores at the end of a page, either search may return others.
    """
    worst = actual[-1].score if len(actual) == _NUM_HITS else -math.inf
    ids = {hit.id for hit in actual}
    return [hit.id for hit in expected if hit.id not in ids and hit.score > worst + _TOLERANCE]


def _is_same_direction(first: Vector, second: Vector) -> bool:
    if first.shape != second.shape:
        return False
    one, other = (vector / max(float(np.linalg.norm(vector)), 1e-12) for vector in (first, second))
    return bool(np.allclose(one, other, rtol=0, atol=_TOLERANCE))


def _difference(ids: Sequence[str], num_compared: int, words: str) -> list[str]:
    """Return a list with one sentence, which counts and names the ids; an empty list if there are no ids."""
    if not ids:
        return []
    more = ", …" if len(ids) > _NUM_NAMED else ""
    return [f"{len(ids):,} of {num_compared:,} {words} ({', '.join(ids[:_NUM_NAMED])}{more})"]

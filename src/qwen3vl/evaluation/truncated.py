"""Exact search by the first values of stored vectors, as an embedder with fewer dimensions would have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3vl.documents import Document, Kind
from qwen3vl.results import truncate_vectors
from qwen3vl.stores import Hit, Store

_BATCH_SIZE = 1024
"""Stored vectors that are in memory at once."""


def search_truncated(
    store: Store,
    vectors: NDArray[np.float32],
    dimensions: int,
    limit: int,
    kinds: Sequence[tuple[Kind, ...]],
) -> list[list[Hit]]:
    """Compare the first values of queries with those of all stored vectors.

    Args:
        store: The store; all of its vectors are read once.
        vectors: The queries, (n, d) float32.
        dimensions: Number of values that are compared, at most d.
        limit: Maximum number of hits of each query.
        kinds: For each query, the kinds of documents that are searched; empty for all.

    Returns:
        The hits of each query, best first, as the store returns them for vectors of so many values.
    """
    queries = truncate_vectors(vectors, dimensions)
    best_scores = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    best_ids: NDArray[Any] = np.empty((len(queries), 0), dtype=object)
    for ids, stored, documents in _batches(store, with_documents=any(kinds)):
        scores = queries @ truncate_vectors(stored, dimensions).T
        for row, allowed in enumerate(kinds):
            if allowed:
                scores[row, [document.kind not in allowed for document in documents]] = -np.inf
        scores = np.concatenate([best_scores, scores], axis=1)
        all_ids = np.concatenate([best_ids, np.tile(np.array(ids, dtype=object), (len(queries), 1))], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :limit]
        best_scores = np.take_along_axis(scores, order, axis=1)
        best_ids = np.take_along_axis(all_ids, order, axis=1)
    found = store.documents(sorted(set(best_ids[best_scores > -np.inf].tolist())))
    return [
        [Hit(point_id, found[point_id], float(score)) for point_id, score in zip(*row, strict=True) if score > -np.inf]
        for row in zip(best_ids, best_scores, strict=True)
    ]


def _batches(store: Store, *, with_documents: bool) -> Iterator[tuple[list[str], NDArray[np.float32], list[Document]]]:
    """Yield ids, vectors and, if they are needed, documents of all points."""
    points = iter(store.scan())
    while ids := [point.id for point in islice(points, _BATCH_SIZE)]:
        vectors = store.vectors(ids)
        documents = store.documents(ids) if with_documents else {}
        in_order = [documents[point_id] for point_id in ids] if with_documents else []
        yield ids, np.stack([vectors[point_id] for point_id in ids]), in_order

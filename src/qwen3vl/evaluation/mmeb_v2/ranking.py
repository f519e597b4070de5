"""Ranks candidates by the similarity of their vectors to those of the queries."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset
from qwen3vl.evaluation.mmeb_v2.metrics import Prediction

_BLOCK_QUERIES = 256
"""Queries whose similarities to all candidates are in memory at once."""


def rank(dataset: LoadedDataset, queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> Iterator[Prediction]:
    """Rank the candidates of each query, all of them, by inner product. Equal ones keep their order.

    Args:
        dataset: The data set; its description says whether a query ranks all candidates or its own.
        queries: Vectors of the queries, (num_queries, dimension).
        candidates: Vectors of the candidates in the order of `dataset.candidates`, (num_candidates, dimension).

    Yields:
        What each query found.
    """
    names = list(dataset.candidates)
    if dataset.spec.ranking == "global":
        for start in range(0, len(queries), _BLOCK_QUERIES):
            orders = _order(queries[start : start + _BLOCK_QUERIES] @ candidates.T)
            for query, order in zip(dataset.queries[start:], orders, strict=False):
                yield Prediction([names[index] for index in order], query.labels, query.rel_scores)
        return
    row_of = {name: row for row, name in enumerate(names)}
    for query, vector in zip(dataset.queries, queries, strict=True):
        own = query.candidate_names
        order = _order(candidates[[row_of[name] for name in own]] @ vector)
        yield Prediction([own[index] for index in order], query.labels, query.rel_scores)


def _order(similarities: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argsort(-similarities, axis=-1, kind="stable")

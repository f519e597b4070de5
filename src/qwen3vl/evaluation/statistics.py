"""Confidence intervals and a significance test, for measures of the same queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
NUM_PERMUTATIONS = 10_000
_CHUNK = 100
"""Resamples or permutations that are in memory at once, each with one number per query."""
_TOLERANCE = 1e-9
"""Sums of equal numbers in another order differ by less."""


def bootstrap_interval(
    scores: NDArray[np.float64], *, confidence: float = 0.95, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return confidence intervals of means, by the percentile bootstrap over queries, expanded for few of them.

    The plain percentile interval is too narrow for few queries: resampled means vary by a standard deviation with n in
    place of n - 1, and their shape is taken for normal where Student's t has longer tails. The expanded one (Hesterberg
    2015, arXiv 1411.5279) takes percentiles further out: for 10 queries and 95 %, 0.9 and 99.1 %.

    Args:
        scores: Measures of each query, (..., num_queries) float64. All are resampled with the same queries.
        confidence: Share of such intervals that have the mean of all possible queries in them.
        seed: Seed of the resampling.

    Returns:
        The lower and the upper ends, (...) float64 each. Of a single query, both are its measure.
    """
    from scipy.special import ndtr, stdtrit  # slow to import, and only installed with the extra eval

    random = np.random.default_rng(seed)
    count = scores.shape[-1]
    shares = np.full(count, 1 / count)
    means = np.concatenate(
        [scores @ random.multinomial(count, shares, _CHUNK).T / count for _ in range(NUM_RESAMPLES // _CHUNK)], axis=-1
    )
    degrees = max(count - 1, 1)
    tail = float(ndtr(stdtrit(degrees, (1 - confidence) / 2) * np.sqrt((degrees + 1) / degrees)))
    low, high = np.quantile(means, [tail, 1 - tail], axis=-1)
    return low, high


def randomization_test(
    first: NDArray[np.float64], second: NDArray[np.float64], *, seed: int = 0
) -> NDArray[np.float64]:
    """Return p-values of differences of means, by the paired randomization test.

    If two settings were equally good, each query's two results could be swapped. The p-value is the share of random
    swaps whose difference of means is at least as large as the observed one, in either direction.

    Args:
        first: Measures of each query in one setting, (..., num_queries) float64.
        second: The same measures of the same queries in the other setting, of the same shape.
        seed: Seed of the swaps.

    Returns:
        The p-values, (...) float64, more than 0 and at most 1.
    """
    random = np.random.default_rng(seed)
    differences = second - first
    observed = np.abs(differences.sum(axis=-1, keepdims=True)) - _TOLERANCE
    extreme = np.zeros(differences.shape[:-1])
    for _ in range(NUM_PERMUTATIONS // _CHUNK):
        signs = random.integers(0, 2, (differences.shape[-1], _CHUNK)) * 2.0 - 1.0
        extreme += (np.abs(differences @ signs) >= observed).sum(axis=-1)
    return np.asarray((extreme + 1) / (NUM_PERMUTATIONS + 1))

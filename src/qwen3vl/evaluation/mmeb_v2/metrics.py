"""The measures of the official scripts (`utils/eval_utils/metrics.py`), with their names and their edge cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from qwen3vl.evaluation.mmeb_v2.dataset import Name

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a query found.

    Attributes:
        ranking: Names of candidates, best first. A name may be there twice, where candidates of a query have one name.
        labels: Names of the right candidates.
        rel_scores: Grades of the labels, in their order; None if they are equally right.
    """

    ranking: Sequence[Name]
    labels: Sequence[Name]
    rel_scores: Sequence[float] | None = None


def measure(predictions: Sequence[Prediction]) -> dict[str, float]:
    """Compute the mean of each measure over queries.

    Args:
        predictions: What each query found.

    Returns:
        `NAME@K` for each of the measures and cutoffs, in the official order; 0 if there are no queries.
    """
    found = [_Found.of(prediction) for prediction in predictions]
    return {
        f"{name}@{cutoff}": fmean(function(query, cutoff) for query in found) if found else 0.0
        for name, function in _MEASURES.items()
        for cutoff in CUTOFFS
    }


@dataclass(frozen=True, slots=True)
class _Found:
    """The part of a prediction that measures look at."""

    top: Sequence[Name]
    """The first candidates, as many as the largest cutoff."""
    labels: frozenset[Name]
    grades: Mapping[Name, float]

    @classmethod
    def of(cls, prediction: Prediction) -> _Found:
        labels, scores = prediction.labels, prediction.rel_scores
        grades = dict.fromkeys(labels, 1.0) if scores is None else _pair(labels, scores)
        return cls(prediction.ranking[: max(CUTOFFS)], frozenset(labels), grades)

    def num_labels(self, cutoff: int) -> int:
        """How many different labels are among the first candidates."""
        return len(self.labels.intersection(self.top[:cutoff]))


def _pair(labels: Sequence[Name], scores: Sequence[float]) -> dict[Name, float]:
    """Return the grades by label.

    The official code makes a set of the labels before it pairs them with their grades, so that grades go to the wrong
    labels. Figures can be compared only if the same is done here. It is for whole numbers, whose order in a set of
    CPython is always the same. The order of texts differs from run to run; they keep their own grades.
    """
    is_numbered = all(isinstance(label, int) for label in labels)
    return dict(zip(list(set(labels)) if is_numbered else labels, scores, strict=True))


def _hit(found: _Found, cutoff: int) -> float:
    return float(found.num_labels(cutoff) > 0)


def _ndcg(found: _Found, cutoff: int, gain: Callable[[float], float]) -> float:
    ideal = sorted(found.grades.values(), reverse=True)[:cutoff]
    best = _discounted(ideal, gain)
    grades = [found.grades.get(name, 0.0) for name in found.top[:cutoff]]
    return _discounted(grades, gain) / best if best > 0 else 0.0


def _discounted(grades: Sequence[float], gain: Callable[[float], float]) -> float:
    return sum(gain(grade) / math.log2(rank + 2) for rank, grade in enumerate(grades))


def _precision(found: _Found, cutoff: int) -> float:
    return found.num_labels(cutoff) / cutoff


def _recall(found: _Found, cutoff: int) -> float:
    return found.num_labels(cutoff) / len(found.labels) if found.labels else 1.0


def _f1(found: _Found, cutoff: int) -> float:
    precision, recall = _precision(found, cutoff), _recall(found, cutoff)
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _average_precision(found: _Found, cutoff: int) -> float:
    ranks = _ranks(found, cutoff)
    total = sum(number / rank for number, rank in enumerate(ranks, start=1))
    return total / min(len(found.labels), cutoff) if ranks else 0.0


def _reciprocal_rank(found: _Found, cutoff: int) -> float:
    ranks = _ranks(found, cutoff)
    return 1.0 / ranks[0] if ranks else 0.0


def _ranks(found: _Found, cutoff: int) -> list[int]:
    """Ranks of the labels, from 1. A label that is there twice has two."""
    return [rank for rank, name in enumerate(found.top[:cutoff], start=1) if name in found.labels]


_MEASURES: Mapping[str, Callable[[_Found, int], float]] = {
    "hit": _hit,
    "ndcg_linear": lambda found, cutoff: _ndcg(found, cutoff, lambda grade: grade),
    "ndcg_exponential": lambda found, cutoff: _ndcg(found, cutoff, lambda grade: 2.0**grade - 1.0),
    "precision": _precision,
    "recall": _recall,
    "f1": _f1,
    "map": _average_precision,
    "mrr": _reciprocal_rank,
}

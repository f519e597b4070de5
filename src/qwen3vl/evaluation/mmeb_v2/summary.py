"""Averages the results of data sets as the official README does: by group, by part of the benchmark, and over all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.groups import GROUPS
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

_TITLES = {"image": "Image", "video": "Video", "visdoc": "VisDoc"}
Scores = Mapping[str, Mapping[str, Any]]
"""The measures of data sets, by name."""


@dataclass(frozen=True, slots=True)
class Average:
    """An average over data sets.

    Attributes:
        title: Its column in the official README.
        num_done: How many data sets have results.
        num_datasets: How many it is of.
        mean: The mean of their published measure, in percent; None if none has results.
    """

    title: str
    num_done: int
    num_datasets: int
    mean: float | None


def average_all(scores: Scores) -> list[Average]:
    """Average the results of the embedding model.

    Args:
        scores: The measures of the data sets that are done.

    Returns:
        The columns of the official table. Each data set counts once, in the averages of parts and of all as well.
    """
    specs = list(DATASETS.values())
    averages = []
    for modality, title in _TITLES.items():
        groups = [group for group in GROUPS if group.modality == modality]
        averages += [_average(group.title, [spec for spec in specs if spec.group == group], scores) for group in groups]
        averages.append(_average(f"{title} Overall", [spec for spec in specs if spec.group in groups], scores))
    return [*averages, _average("All", specs, scores)]


def average_retrieval(scores: Scores) -> list[Average]:
    """Average the results of data sets of retrieval, with or without reranker.

    Args:
        scores: The measures of the data sets that are done.

    Returns:
        The columns of the official table of rerankers.
    """
    specs = [spec for spec in DATASETS.values() if spec.reranked]
    parts = [
        _average(title, [spec for spec in specs if spec.group.modality == modality], scores)
        for modality, title in _TITLES.items()
    ]
    return [_average("Avg", specs, scores), *parts]


def main_measure(spec: DatasetSpec, scores: Scores) -> float | None:
    """Return the measure of a data set that is published.

    Args:
        spec: The data set.
        scores: The measures of the data sets that are done.

    Returns:
        The measure in percent; None if the data set is not done.
    """
    return 100 * scores[spec.name][spec.group.metric] if spec.name in scores else None


def _average(title: str, specs: Sequence[DatasetSpec], scores: Scores) -> Average:
    means = [mean for spec in specs if (mean := main_measure(spec, scores)) is not None]
    return Average(title, len(means), len(specs), fmean(means) if means else None)

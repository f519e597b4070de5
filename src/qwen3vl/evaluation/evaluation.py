"""An evaluation: the measures of all queries in all settings, their intervals, and comparisons of settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen3vl.errors import InputError
from qwen3vl.evaluation.measures import Scores, check_installed, measure
from qwen3vl.evaluation.queries import EvalQuery, check_queries
from qwen3vl.evaluation.relevance import Relevance, resolve_relevance
from qwen3vl.evaluation.searcher import Searcher
from qwen3vl.evaluation.settings import Setting
from qwen3vl.evaluation.statistics import bootstrap_interval, randomization_test
from qwen3vl.stores import Hit, Store

if TYPE_CHECKING:
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

DEFAULT_CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True, eq=False)
class SettingResult:
    """What a setting finds.

    Attributes:
        setting: The setting.
        hits: The hits of each query, best first.
        scores: Each measure of each query, by the measure's name.
    """

    setting: Setting
    hits: Sequence[Sequence[Hit]]
    scores: Mapping[str, Scores]


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """The results of all settings for the same queries.

    Attributes:
        queries: The queries that were searched.
        relevance: What is relevant to each of them.
        results: The results in the order of the settings; the others are compared with the first.
        failed: Why a query cannot be used, by its id. Such queries are in no result.
        unscored: Why the reranker cannot score a document, by its name. Such documents come after the others.
    """

    queries: Sequence[EvalQuery]
    relevance: Relevance
    results: Sequence[SettingResult]
    failed: Mapping[str, str]
    unscored: Mapping[str, str] = field(default_factory=dict)

    @property
    def measures(self) -> list[str]:
        """The names of the measures, the main one first."""
        return list(self.results[0].scores)

    @property
    def best(self) -> SettingResult:
        """The result with the highest mean of the main measure; the first of those that are equal."""
        return max(self.results, key=lambda result: float(result.scores[self.measures[0]].mean()))

    def groups(self) -> Iterator[tuple[str, list[int]]]:
        """Yield groups of queries.

        Yields:
            Name and indices: all queries, those of each kind of query and of relevant documents, if there are several.
        """
        indices = range(len(self.queries))
        yield "all", list(indices)
        query_kinds = [query.kind for query in self.queries]
        document_kinds = [self.relevance.document_kind(index) for index in indices]
        for title, kinds in (("query", query_kinds), ("document", document_kinds)):
            names = sorted(set(kinds))
            for name in names if len(names) > 1 else ():
                yield f"{title}: {name}", [index for index in indices if kinds[index] == name]

    def worst(self, result: SettingResult, count: int) -> list[int]:
        """Return the queries for which a setting finds the least.

        Args:
            result: A result of this evaluation.
            count: Maximum number of queries.

        Returns:
            Indices of queries whose main measure is less than 1, lowest first.
        """
        scores = result.scores[self.measures[0]]
        return [int(index) for index in np.argsort(scores, kind="stable")[:count] if scores[index] < 1]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON values.

        Returns:
            For each setting, the mean and the 95 % confidence interval of each measure in each group of queries, the
            p-value of its difference from the first setting (None for the first), and each query's measures.
        """
        settings: list[dict[str, Any]] = [
            {
                "name": result.setting.name,
                **asdict(result.setting),
                "groups": {},
                "per_query": {name: scores.tolist() for name, scores in result.scores.items()},
            }
            for result in self.results
        ]
        for group, indices in self.groups():
            for summary, figures in zip(settings, self._figures(indices), strict=True):
                summary["groups"][group] = figures
        return {
            "measures": self.measures,
            "queries": [query.id for query in self.queries],
            "groups": {name: len(indices) for name, indices in self.groups()},
            "settings": settings,
            "failed": dict(self.failed),
            "unscored": dict(self.unscored),
            "missing": dict(self.relevance.missing),
        }

    def _figures(self, indices: list[int]) -> list[dict[str, dict[str, float | None]]]:
        """Return the figures of some queries in each setting, by measure."""
        scores = np.stack(
            [np.stack([result.scores[name][indices] for name in self.measures]) for result in self.results]
        )
        means = scores.mean(axis=-1)
        low, high = bootstrap_interval(scores)
        p_values = randomization_test(np.broadcast_to(scores[0], scores.shape), scores)
        return [
            {
                name: {
                    "mean": float(means[row, column]),
                    "low": float(low[row, column]),
                    "high": float(high[row, column]),
                    "p": float(p_values[row, column]) if row else None,
                }
                for column, name in enumerate(self.measures)
            }
            for row in range(len(self.results))
        ]


def evaluate(
    queries: Sequence[EvalQuery],
    stores: Mapping[str, Store],
    settings: Sequence[Setting],
    embedder: Embedder,
    reranker: Reranker | None = None,
    *,
    cutoffs: Sequence[int] = DEFAULT_CUTOFFS,
    allow_missing: bool = False,
    relevance: Relevance | None = None,
    progress: bool = False,
) -> Evaluation:
    """Search with queries whose answers are known, in all settings.

    Args:
        queries: The queries.
        stores: Stores by name: one, or copies of it in other layouts. Names of relevant documents are looked up in the
            first.
        settings: How to search, from `grid`. The others are compared with the first.
        embedder: Embeds each query once for each instruction.
        reranker: For settings with candidates.
        cutoffs: Numbers of hits that are looked at.
        allow_missing: Whether relevant names that no document has are counted, instead of being an error.
        relevance: What `check_evaluation` has returned for the same arguments; None checks them here.
        progress: Whether to show progress bars.

    Returns:
        The results.

    Raises:
        InputError: A name of a relevant document means none or several, a query has no relevant document, two have the
            same id, or no query can be used.
        Qwen3VLError: The extra `eval` is not installed.
        ValueError: The settings do not fit the stores, the cutoffs or the models.

    Example:
        ```python
        settings = grid(["library"], ["dense", "hybrid"])
        evaluation = evaluate(read_queries("queries.jsonl"), {"library": store}, settings, embedder)
        ```
    """
    if relevance is None:
        relevance = check_evaluation(
            queries,
            stores,
            settings,
            embedder.recipe.dimensions,
            has_reranker=reranker is not None,
            cutoffs=cutoffs,
            allow_missing=allow_missing,
        )
    searcher = Searcher(queries, stores, embedder, reranker, limit=max(cutoffs), progress=progress)
    hits = [searcher.search(setting) for setting in settings]
    kept = [index for index in range(len(queries)) if index not in searcher.failed]
    failed = {queries[index].id: reason for index, reason in sorted(searcher.failed.items())}
    if not kept:
        query_id, reason = next(iter(failed.items()))
        raise InputError(f"no query can be used; the first is {query_id!r}: {reason}")
    grades = [relevance.grades[index] for index in kept]
    results = []
    for setting, setting_hits in zip(settings, hits, strict=True):
        kept_hits = [setting_hits[index] for index in kept]
        results.append(SettingResult(setting, kept_hits, measure(kept_hits, grades, cutoffs)))
    kept_relevance = Relevance(grades, relevance.documents, relevance.missing)
    return Evaluation([queries[index] for index in kept], kept_relevance, results, failed, searcher.unscored)


def check_evaluation(
    queries: Sequence[EvalQuery],
    stores: Mapping[str, Store],
    settings: Sequence[Setting],
    dimensions: int,
    *,
    has_reranker: bool,
    cutoffs: Sequence[int] = DEFAULT_CUTOFFS,
    allow_missing: bool = False,
) -> Relevance:
    """Check all that can be checked before models are loaded.

    Args:
        queries: As for `evaluate`.
        stores: As for `evaluate`.
        settings: As for `evaluate`.
        dimensions: Number of values of the embedder's vectors.
        has_reranker: Whether there will be a reranker.
        cutoffs: As for `evaluate`.
        allow_missing: As for `evaluate`.

    Returns:
        What is relevant to each query, for `evaluate`.

    Raises:
        InputError: As `evaluate` raises it for names, queries and ids.
        Qwen3VLError: The extra `eval` is not installed.
        ValueError: The settings do not fit the stores, the cutoffs or the models.
    """
    check_installed()
    check_queries(queries, "the evaluation")
    _check_settings(settings, stores, dimensions, cutoffs, has_reranker=has_reranker)
    return resolve_relevance(queries, next(iter(stores.values())), allow_missing=allow_missing)


def _check_settings(
    settings: Sequence[Setting],
    stores: Mapping[str, Store],
    dimensions: int,
    cutoffs: Sequence[int],
    *,
    has_reranker: bool,
) -> None:
    if not settings or not cutoffs or min(cutoffs) < 1:
        raise ValueError("an evaluation needs at least one setting, and at least one cutoff, from 1")
    for setting in settings:
        if setting.store not in stores:
            raise ValueError(f"there is no store {setting.store!r}; there are {', '.join(stores)}")
        if setting.dimensions is not None and setting.dimensions > dimensions:
            raise ValueError(f"dimensions is {setting.dimensions}, and the store's vectors have {dimensions} values")
        if setting.candidates is None:
            continue
        if not has_reranker:
            raise ValueError(f"the setting {setting.name!r} needs a reranker")
        if setting.candidates < max(cutoffs):
            raise ValueError(
                f"{setting.candidates} candidates of the reranker are less than the {max(cutoffs)} hits that are "
                "looked at: rerank more, or look at less"
            )

"""A data set that was read: its queries, and the candidates that they rank."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

Name: TypeAlias = str | int
"""Name of a candidate. Some data sets number their pages."""
InputMapping: TypeAlias = Mapping[str, Any]
"""An input as `Embedder.embed` accepts it: any of text, image, video (a list of frames) and instruction."""


@dataclass(frozen=True, slots=True)
class Row:
    """A query with its own candidates, as a loader yields it.

    Attributes:
        query: The query with its instruction.
        candidates: Names and inputs of its candidates, in the order of the annotations.
        label: Name of the right candidate, or names of all right ones.
        rel_scores: Grades of the labels, in their order; None if they are equally right.
        details: What else the official loader notes about the query, for the file of queries.
    """

    query: InputMapping
    candidates: Sequence[tuple[Name, InputMapping]]
    label: Name | Sequence[Name] | None
    rel_scores: Sequence[float] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """A query of a data set that was read.

    Attributes:
        input: The query with its instruction.
        info: What the file of queries says of it: `cand_names`, `label_name`, perhaps `rel_scores`, and details.
    """

    input: InputMapping
    info: Mapping[str, Any]

    @property
    def candidate_names(self) -> Sequence[Name]:
        """Names of its own candidates."""
        return self.info["cand_names"]  # type: ignore[no-any-return]

    @property
    def labels(self) -> list[Name]:
        """Names of the right candidates."""
        label = self.info["label_name"]
        return list(label) if isinstance(label, list) else [label]

    @property
    def rel_scores(self) -> Sequence[float] | None:
        """Grades of the labels, in their order; None if they are equally right."""
        return self.info.get("rel_scores")


@dataclass(frozen=True, slots=True)
class LoadedDataset:
    """A data set that was read.

    Attributes:
        spec: The data set.
        queries: Its queries in order.
        candidates: Inputs of all candidates by name, in the order in which they first appear: those of the queries,
            then those of the corpus. An input that appears again under the same name is not used.
    """

    spec: DatasetSpec
    queries: Sequence[Query]
    candidates: Mapping[Name, InputMapping]


def collect(spec: DatasetSpec, rows: Iterable[Row], corpus: Iterable[tuple[Name, InputMapping]] = ()) -> LoadedDataset:
    """Collect queries and candidates, each candidate once.

    Args:
        spec: The data set.
        rows: Its queries; taken one after the other, so that a generator needs little memory.
        corpus: Candidates of no query in particular.

    Returns:
        The data set.
    """
    queries: list[Query] = []
    candidates: dict[Name, InputMapping] = {}
    for row in rows:
        for name, candidate in row.candidates:
            candidates.setdefault(name, candidate)
        info = {
            "cand_names": [name for name, _ in row.candidates],
            "label_name": list(row.label) if isinstance(row.label, (list, tuple)) else row.label,
            **({} if row.rel_scores is None else {"rel_scores": list(row.rel_scores)}),
            **row.details,
        }
        queries.append(Query(row.query, info))
    for name, candidate in corpus:
        candidates.setdefault(name, candidate)
    return LoadedDataset(spec, queries, candidates)

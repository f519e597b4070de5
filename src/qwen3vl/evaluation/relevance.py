"""Which documents of a store the relevant names of queries mean, and which of them are among hits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.evaluation.queries import EvalQuery
from qwen3vl.stores import Hit, PointRef, Store

_SEPARATORS = re.compile(r"[/\\]")
_FETCH_SIZE = 512
_NAMES_IN_MESSAGE = 5


@dataclass(frozen=True, slots=True)
class Relevance:
    """What is relevant to each query, by the names that documents of the store have.

    Attributes:
        grades: For each query, grades by a document's source, its source and locator, or a point's id.
        documents: One document for each of these names.
        missing: Names that no document has, with the id of the first query that has them. They count as not found.
    """

    grades: Sequence[Mapping[str, int]]
    documents: Mapping[str, Document]
    missing: Mapping[str, str]

    def document_kind(self, index: int) -> str:
        """Return the kind of a query's relevant documents.

        Args:
            index: The query's index.

        Returns:
            A `Kind`, several as `"page + text"`, or `"missing"` if the store has none of them.
        """
        kinds = {self.documents[name].kind for name in self.grades[index] if name in self.documents}
        return " + ".join(sorted(kinds)) or "missing"


@dataclass(slots=True)
class _Matches:
    """The names in a store that a name means, with the id of one point each."""

    exact: dict[str, str] = field(default_factory=dict)
    by_ending: dict[str, str] = field(default_factory=dict)


def resolve_relevance(queries: Sequence[EvalQuery], store: Store, *, allow_missing: bool = False) -> Relevance:
    """Look up the documents that queries name.

    A name is the id of a point, a source, or `SOURCE#LOCATOR`. A path may be shorter than the source, if only one
    source ends with it: `scenes/1.png` or `1.png` means `/data/scenes/1.png`.

    Args:
        queries: The queries.
        store: The store, of which all points are listed once.
        allow_missing: Whether names that no document has are counted, instead of being an error.

    Returns:
        The relevant documents of each query.

    Raises:
        InputError: A name means several sources, or none; or the store has none of the names.
    """
    query_ids: dict[str, str] = {}
    for query in queries:
        for name in query.relevant:
            query_ids.setdefault(name, query.id)
    matches = _match(query_ids, store.scan())
    point_ids = _choose(matches, query_ids)
    missing = {name: query_id for name, query_id in query_ids.items() if name not in point_ids}
    if missing and (not allow_missing or not point_ids):
        raise InputError(_missing_message(missing, len(query_ids), store.name, hint=not allow_missing))
    documents: dict[str, Document] = {}
    pairs = list(dict(point_ids.values()).items())
    for start in range(0, len(pairs), _FETCH_SIZE):
        chunk = pairs[start : start + _FETCH_SIZE]
        found = store.documents([point_id for _, point_id in chunk])
        documents |= {name: found[point_id] for name, point_id in chunk if point_id in found}
    grades = [_rename(query.relevant, point_ids) for query in queries]
    return Relevance(grades, documents, missing)


def find_relevant(hits: Sequence[Hit], grades: Mapping[str, int]) -> list[str | None]:
    """Return what each hit finds.

    Several hits may be documents of one relevant source: the first of them finds it, the others find nothing.

    Args:
        hits: Hits, best first.
        grades: Grades by name, from `Relevance.grades`.

    Returns:
        For each hit a relevant name that no hit before it has found, that of the highest grade; None for other hits.
    """
    found: list[str | None] = []
    remaining = dict(grades)
    for hit in hits:
        names = [name for name in (hit.id, hit.document.name, hit.document.source) if name in remaining]
        best = max(names, key=remaining.__getitem__, default=None)
        if best is not None:
            del remaining[best]
        found.append(best)
    return found


def _match(wanted: Mapping[str, str], points: Iterable[PointRef]) -> dict[str, _Matches]:
    matches: dict[str, _Matches] = {}
    for point in points:
        names = [point.source, f"{point.source}#{point.locator}"] if point.locator else [point.source]
        for name in {point.id, *names} & wanted.keys():
            matches.setdefault(name, _Matches()).exact.setdefault(name, point.id)
        for name in names:
            for ending in _endings(name, len(point.source)):
                if ending in wanted:
                    matches.setdefault(ending, _Matches()).by_ending.setdefault(name, point.id)
    return matches


def _endings(name: str, source_length: int) -> Iterator[str]:
    """Yield what follows each separator of the source."""
    if not name.startswith("data:"):
        for separator in _SEPARATORS.finditer(name, 0, source_length):
            yield name[separator.end() :]


def _choose(matches: Mapping[str, _Matches], query_ids: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return the store's name and a point's id for each name."""
    chosen = {}
    for name, found in matches.items():
        candidates = found.exact or found.by_ending
        if len(candidates) > 1:
            first, second = sorted(candidates)[:2]
            raise InputError(
                f"the query {query_ids[name]!r}: {name!r} means {len(candidates)} sources of the store, such as "
                f"{first} and {second}: write more of the path"
            )
        chosen[name] = next(iter(candidates.items()))
    return chosen


def _rename(relevant: Mapping[str, int], chosen: Mapping[str, tuple[str, str]]) -> dict[str, int]:
    grades: dict[str, int] = {}
    for name, grade in relevant.items():
        stored_name = chosen[name][0] if name in chosen else name
        grades[stored_name] = max(grade, grades.get(stored_name, 0))
    return grades


def _missing_message(missing: Mapping[str, str], count: int, store: str, *, hint: bool) -> str:
    shown = ", ".join(f"{name!r} (query {query_id!r})" for name, query_id in list(missing.items())[:_NAMES_IN_MESSAGE])
    more = f" and {len(missing) - _NAMES_IN_MESSAGE} more" if len(missing) > _NAMES_IN_MESSAGE else ""
    fix = "a name is a source, SOURCE#LOCATOR or an id, as `qwen3vl search --json` prints them"
    fix += "; or allow missing names (--allow-missing), which then count as not found" if hint else ""
    return f"{len(missing)} of {count} relevant names are of no document in {store}: {shown}{more}. Correct them: {fix}"

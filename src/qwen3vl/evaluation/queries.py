"""Queries with known answers: a file of JSON lines, or a folder in the layout of BEIR."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from qwen3vl.documents import Kind
from qwen3vl.errors import InputError
from qwen3vl.inputs import as_item

MAX_GRADE = 1_000_000
"""The largest grade: trec_eval allocates memory for each grade up to the largest, and ends the process above 2³¹."""
_MEDIA_KEYS = ("image", "video")
_KEYS = ("id", "text", *_MEDIA_KEYS, "relevant", "kind")
_DEFAULT_SPLIT = "test"


@dataclass(frozen=True, slots=True)
class EvalQuery:
    """A query and what should be found.

    Attributes:
        id: Name of the query, unique among the queries of an evaluation.
        input: The query: a mapping with any of the keys text, image and video, as `Embedder.embed` accepts it.
        relevant: Grades, from 1, by the name of what is relevant: a source (all of its documents), `SOURCE#LOCATOR`
            such as `report.pdf#page=3`, or the id of a hit.
        kinds: Kinds of documents that are searched; empty for all.
    """

    id: str
    input: Mapping[str, Any]
    relevant: Mapping[str, int]
    kinds: tuple[Kind, ...] = ()

    @property
    def kind(self) -> str:
        """What the query consists of: `"text"`, `"image"`, `"video"`, or several of them, as `"text + image"`."""
        return " + ".join(key for key in ("text", *_MEDIA_KEYS) if self.input.get(key))


def read_queries(path: str | Path, split: str | None = None) -> list[EvalQuery]:
    """Read queries from a file of JSON lines, or from a folder in the layout of BEIR.

    A line is an object with `id`, any of `text`, `image` and `video` (paths are relative to the file), `relevant` (a
    list of names, or grades by name) and perhaps `kind` (which kinds of documents are searched). A folder has
    `queries.jsonl`, with `_id` and `text`, and `qrels/SPLIT.tsv`; queries without relevant documents in the split are
    left out.

    Args:
        path: The file or the folder.
        split: Name of a file in `qrels`, without its suffix; None is `test`, or the only one. Only for folders.

    Returns:
        The queries in their order.

    Raises:
        InputError: Something is missing or has a wrong form; the message names the file and the line.

    Example:
        ```python
        queries = read_queries("queries.jsonl")
        ```
    """
    path = Path(path)
    if path.is_dir():
        queries = list(_read_beir(path, split))
    elif path.is_file():
        if split is not None:
            raise InputError(f"{path} is a file, which has no splits: leave the split {split!r} out")
        queries = [_to_query(where, fields, path.parent) for where, fields in _read_lines(path)]
    else:
        raise InputError(f"there are no queries at {path}: name a file of JSON lines, or a folder in BEIR's layout")
    if not queries:
        raise InputError(f"{path} has no query with a relevant document")
    check_queries(queries, str(path))
    return queries


def check_queries(queries: Sequence[EvalQuery], name: str) -> None:
    """Check that queries can be measured.

    Args:
        queries: The queries.
        name: Where they come from, for the error message.

    Raises:
        InputError: There are none, two have the same id, or one has no relevant document or a grade above `MAX_GRADE`.
    """
    if not queries:
        raise InputError(f"{name}: there is no query; an evaluation needs at least one")
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise InputError(f"{name} has two queries with the id {query.id!r}: give each its own")
        if not any(grade > 0 for grade in query.relevant.values()):
            raise InputError(f"{name}: the query {query.id!r} has no relevant document: name one, or leave it out")
        for document, grade in query.relevant.items():
            if abs(grade) > MAX_GRADE:
                raise InputError(
                    f"{name}: the query {query.id!r} has the grade {grade} for {document!r}; grades may be up to "
                    f"{MAX_GRADE}: divide them all by the same number, or rank them from 1"
                )
        seen.add(query.id)


def _read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the file and number of each line that is not empty, for error messages, and its fields."""
    try:
        # Not splitlines(), which also splits at U+2028 and U+0085: JSON may have them in its strings.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8: {error.reason}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: it is not JSON that can be read: {error}") from error
        if not isinstance(fields, dict):
            raise InputError(f"{where}: it is not a JSON object, such as {{'id': '1', 'text': '…', 'relevant': ['…']}}")
        yield where, fields


def _to_query(where: str, fields: Mapping[str, Any], folder: Path) -> EvalQuery:
    if unknown := [key for key in fields if key not in _KEYS]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; a query may have {', '.join(_KEYS)}")
    relevant = fields.get("relevant")
    if isinstance(relevant, list):
        relevant = dict.fromkeys(map(str, relevant), 1)
    if not isinstance(relevant, dict) or not all(type(grade) is int for grade in relevant.values()):
        raise InputError(f"{where}: 'relevant' must be a list of names, or whole numbers by name")
    positive = {name: grade for name, grade in relevant.items() if grade > 0}
    if not positive:
        raise InputError(f"{where}: 'relevant' has no name with a grade of 1 or more")
    return EvalQuery(_query_id(where, fields, "id"), _input(where, fields, folder), positive, _kinds(where, fields))


def _read_beir(folder: Path, split: str | None) -> Iterator[EvalQuery]:
    qrels_path = _qrels_path(folder, split)
    grades = _read_qrels(qrels_path)
    queries_path = folder / "queries.jsonl"
    if not queries_path.is_file():
        raise InputError(f"{folder} is not in BEIR's layout: it has no queries.jsonl")
    for where, fields in _read_lines(queries_path):
        query_id = _query_id(where, fields, "_id")
        if query_id in grades:
            yield EvalQuery(query_id, _input(where, fields, folder), grades.pop(query_id))
    if grades:
        raise InputError(f"{qrels_path} has the query {next(iter(grades))!r}, which {queries_path} has not")


def _qrels_path(folder: Path, split: str | None) -> Path:
    splits = {path.stem: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    if not splits:
        raise InputError(f"{folder} is not in BEIR's layout: it has no qrels/*.tsv")
    if split is None:
        split = next(iter(splits)) if len(splits) == 1 else _DEFAULT_SPLIT
    if split not in splits:
        raise InputError(f"{folder} has no split {split!r}; it has {', '.join(splits)}")
    return splits[split]


def _read_qrels(path: Path) -> dict[str, dict[str, int]]:
    """Return the positive grades of each query that has any."""
    grades: dict[str, dict[str, int]] = {}
    for number, row in enumerate(_read_table(path), start=1):
        if not row or (number == 1 and not row[-1].lstrip("-").isdigit()):  # the header
            continue
        try:
            query_id, name, grade = row[0], row[1], int(row[2])
        except (IndexError, ValueError) as error:
            raise InputError(f"{path}, line {number}: it is not a query, a document and a whole number") from error
        if grade > 0:
            grades.setdefault(query_id, {})[name] = grade
    return grades


def _read_table(path: Path) -> Iterator[list[str]]:
    """Yield the fields of each line, separated by tabs."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        try:
            yield from rows
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not text in UTF-8: {error.reason}") from error
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: it cannot be read: {error}") from error


def _query_id(where: str, fields: Mapping[str, Any], key: str) -> str:
    query_id = fields.get(key)
    if isinstance(query_id, bool) or not isinstance(query_id, (str, int)) or query_id == "":
        raise InputError(f"{where}: {key!r} must be the name of the query, a str or a whole number")
    return str(query_id)


def _input(where: str, fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the query as an input of the models, with absolute paths."""
    query = {key: fields[key] for key in ("text", *_MEDIA_KEYS) if fields.get(key)}
    for key in _MEDIA_KEYS:
        if isinstance(query.get(key), str):
            query[key] = _absolute(query[key], folder)
        elif isinstance(query.get(key), list):
            query[key] = [_absolute(value, folder) if isinstance(value, str) else value for value in query[key]]
    try:
        as_item(query)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return query


def _absolute(reference: str, folder: Path) -> str:
    return reference if "://" in reference or reference.startswith("data:") else str((folder / reference).absolute())


def _kinds(where: str, fields: Mapping[str, Any]) -> tuple[Kind, ...]:
    kinds = fields.get("kind") or []
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not isinstance(kinds, list) or any(kind not in get_args(Kind) for kind in kinds):
        raise InputError(f"{where}: 'kind' is {kinds!r}; it may be {', '.join(get_args(Kind))} or a list of them")
    return tuple(kinds)

"""`Tally`: what became of documents that are not written, in rows of the dataset.

The counts of workers travel with the documents, so that a task that runs twice is counted once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from qwen3vl.documents import LoadFailure
from qwen3vl.ingestion import Report
from qwen3vl_ray.rows import ERROR, MANIFEST, rows_of

TALLY = "tally"
"""Column: a `Tally` as JSON; null in rows of documents."""


@dataclass(slots=True)
class Tally:
    """What workers have done with some documents.

    Attributes:
        added: Number of points that were written.
        unchanged: Number of documents that were stored already, or that repeat another.
        failed: Source, locator and reason of what failed.
        has_unknown_failure: Whether something failed of which it is not known which documents it has.
        skipped: Number of files that are not loaded, by suffix.
        seen: Point id, source and locator of the documents, if `sync` needs them.
    """

    added: int = 0
    unchanged: int = 0
    failed: list[tuple[str, str, str]] = field(default_factory=list)
    has_unknown_failure: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def merge(self, other: Tally) -> None:
        """Add the counts of another tally.

        Args:
            other: The other one.
        """
        self.added += other.added
        self.unchanged += other.unchanged
        self.failed.extend(other.failed)
        self.has_unknown_failure |= other.has_unknown_failure
        self.seen.extend(other.seen)
        for suffix, count in other.skipped.items():
            self.skipped[suffix] = self.skipped.get(suffix, 0) + count

    def to_report(self) -> Report:
        """Return the counts as the report of an ingestion."""
        failed = [(LoadFailure(source, reason, locator).name, reason) for source, locator, reason in self.failed]
        return Report(self.added, self.unchanged, failed=failed, skipped=dict(self.skipped))

    def to_row(self, schema: pa.Schema) -> pa.Table:
        """Return the tally as a table of one row.

        Args:
            schema: Columns of the table; all are null but `TALLY`, and `id` where there is one.

        Returns:
            The table. Its id is no document's, so that checkpoints of Ray mark no document as done.
        """
        row = {TALLY: json.dumps(asdict(self)), "id": f"tally:{uuid4()}"}
        return pa.table({name: pa.array([row.get(name)], schema.field(name).type) for name in schema.names})


def read_tallies(table: pa.Table) -> tuple[pa.Table, Tally]:
    """Take the tallies out of a table.

    Args:
        table: Rows of documents and tallies.

    Returns:
        The rows of documents, and the sum of the tallies.
    """
    total = Tally()
    if TALLY not in table.column_names:
        return table, total
    column = table[TALLY]
    for text in column.drop_null().to_pylist():
        total.merge(Tally(**json.loads(text)))
    return table.filter(pc.is_null(column)), total


def take_failures(table: pa.Table) -> tuple[pa.Table, Tally]:
    """Take the rows with an error out of a table.

    Args:
        table: Rows of documents.

    Returns:
        The rows without an error, and the failures.
    """
    if ERROR not in table.column_names:
        return table, Tally()
    is_failed = pc.is_valid(table[ERROR])
    failed = rows_of(table.filter(is_failed), ("source", "locator", "kind", "image", "video", "id", ERROR))
    names = [(row.get("source") or row.get("image") or row.get("video") or row.get("id") or "") for row in failed]
    failures = [(name, row.get("locator") or "", row[ERROR]) for name, row in zip(names, failed, strict=True)]
    has_unknown = any(row.get("kind") == MANIFEST or not name for name, row in zip(names, failed, strict=True))
    return table.filter(pc.invert(is_failed)), Tally(failed=failures, has_unknown_failure=has_unknown)


def with_tally(table: pa.Table, tallies: Sequence[Tally]) -> pa.Table:
    """Return rows of documents with one more row for what became of others.

    Args:
        table: Rows of documents.
        tallies: Their sum is added.

    Returns:
        The table with the column `TALLY`.
    """
    if TALLY not in table.column_names:
        table = table.append_column(TALLY, pa.nulls(table.num_rows, pa.string()))
    return pa.concat_tables([table, total(tallies).to_row(table.schema)])


def total(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies.

    Args:
        tallies: The tallies.

    Returns:
        Their sum.
    """
    result = Tally()
    for tally in tallies:
        result.merge(tally)
    return result

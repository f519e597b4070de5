"""The result of an ingestion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qwen3vl.errors import StoreError


@dataclass(slots=True)
class Report:
    """What an ingestion did.

    Attributes:
        added: Number of points that were written.
        unchanged: Number of documents that were stored already, or that repeat an earlier one of the stream.
        replaced: Number of points that `sync` deleted because their source has another version of them now.
        deleted: Number of points that `sync` deleted because their source does not have them any more.
        kept: Number of points that `sync` did not delete although their files are gone, by the empty folder below which
            the files were: its disk may not be mounted. Points are deleted once the folder itself is removed.
        not_deleted: Why `sync` deleted nothing, if it could not know which points are stale; empty otherwise.
        failed: Document or source, and reason, of everything that could not be loaded, embedded or written.
        skipped: Number of files that the loader did not load, by suffix.
        indexing_s: Seconds that the store has been building its index, during a write or at the end; else 0.
    """

    added: int = 0
    unchanged: int = 0
    replaced: int = 0
    deleted: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)
    indexing_s: float = 0.0
    kept: dict[str, int] = field(default_factory=dict)
    not_deleted: str = ""

    @property
    def seen(self) -> int:
        """Number of documents and failures that are finished."""
        return self.added + self.unchanged + len(self.failed)


class IngestError(StoreError):
    """A store's failure ended an ingestion. What was added before is written; the next run continues from there.

    Args:
        message: What failed.
        report: What was done before.
    """

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self.args, self.report), self.__dict__

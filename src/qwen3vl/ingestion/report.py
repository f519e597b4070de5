"""What an ingestion tells."""

from __future__ import annotations

from dataclasses import dataclass, field

from qwen3vl.errors import StoreError


@dataclass(slots=True)
class Report:
    """What an ingestion did: how many points it added, found unchanged, replaced and deleted.

    `replaced` are points of which the source has another version now, `deleted` those that it no longer has;
    both are counted with `sync` only.  `failed` are (document or source, reason); `skipped` counts files by suffix.
    """

    added: int = 0
    unchanged: int = 0
    replaced: int = 0
    deleted: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Documents dealt with so far."""
        return self.added + self.unchanged + len(self.failed)


class IngestError(StoreError):
    """An ingestion that a store's trouble ended; `report` says what was done before, all of it written."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report

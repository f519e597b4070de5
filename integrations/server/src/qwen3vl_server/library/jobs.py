"""Ingestions: what is to be loaded, how far it is, and their records on the disk, which outlive the server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from qwen3vl.durable import write_file

Status = Literal["waiting", "running", "done", "failed"]


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file to load as the documents of a source.

    Attributes:
        source: The source.
        path: The file in the media folder; empty if it is fetched first.
        url: The http(s) URL to fetch; empty if the file is there.
        metadata: Metadata of all its documents.
    """

    source: str
    path: str = ""
    url: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Job:
    """An ingestion.

    Attributes:
        files: What is to be loaded.
        id: Its id.
        status: `"failed"` if it has ended before all was tried; files that failed are in `failed`.
        added: Number of documents that were written.
        unchanged: Number of documents that were stored already.
        replaced: Number of documents of former versions of the sources that were deleted.
        failed: Document or source, and reason, of everything that could not be loaded, embedded or written.
        error: Why it has ended early; None if it has not.
    """

    files: tuple[NewFile, ...]
    id: str = field(default_factory=lambda: uuid4().hex)
    status: Status = "waiting"
    added: int = 0
    unchanged: int = 0
    replaced: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None

    @property
    def sources(self) -> set[str]:
        """The sources whose documents it writes."""
        return {file.source for file in self.files}

    def to_dict(self) -> dict[str, Any]:
        """Return the job as clients see it."""
        return {
            "id": self.id,
            "status": self.status,
            "sources": [file.source for file in self.files],
            "added": self.added,
            "unchanged": self.unchanged,
            "replaced": self.replaced,
            "failed": [{"source": source, "reason": reason} for source, reason in self.failed],
            "error": self.error,
        }


class JobRecords:
    """Jobs that are not finished, as files.

    Args:
        folder: The folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, job: Job) -> None:
        """Write a job. It is durable when this returns.

        Args:
            job: The job.
        """
        write_file(self._path(job.id), json.dumps([asdict(new_file) for new_file in job.files]).encode())

    def remove(self, job: Job) -> None:
        """Delete the record of a job.

        Args:
            job: The job.
        """
        self._path(job.id).unlink(missing_ok=True)

    def load(self) -> Iterable[Job]:
        """Read the jobs that a former process has not finished, oldest first.

        Files that it had not written completely are deleted, because their jobs were not accepted.
        """
        for path in self._folder.glob("*.tmp"):
            path.unlink(missing_ok=True)
        for path in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime):
            files = json.loads(path.read_text(encoding="utf-8"))
            yield Job(tuple(NewFile(**file) for file in files), path.stem)

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.json"

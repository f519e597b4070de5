"""Which stored points are deleted at the end, because the stream did not contain them."""

from __future__ import annotations

import fnmatch
import glob
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Literal
from uuid import UUID

from qwen3vl.documents import Document
from qwen3vl.ingestion.report import Report
from qwen3vl.ingestion.unmounted import EmptyFolders
from qwen3vl.ingestion.urls import split_url
from qwen3vl.stores import Store

log = logging.getLogger(__name__)
DELETE_BATCH = 512
"""Maximum number of points that are deleted in one request."""
Sync = bool | Literal["sources"] | Callable[[str], bool]
"""Which points `ingest` deletes if the stream did not contain them: those of all sources, of the stream's sources
(`"sources"`), or of sources for which a function returns true."""


class SyncTracker:
    """Ids, locators and sources of a stream, recorded as far as `sync` needs them.

    Args:
        sync: Which points may be deleted.

    Attributes:
        has_unknown_failure: Whether something failed whose source is not known.
        kept: Number of points that `stale_points` left out because of an empty folder, by that folder.

    Raises:
        ValueError: `sync` has another value.
    """

    def __init__(self, sync: Sync) -> None:
        if not (isinstance(sync, bool) or sync == "sources" or callable(sync)):
            raise ValueError(f"sync is {sync!r}; it may be True, False, 'sources' or a function of a source")
        self._sync = sync
        self._ids: set[bytes] = set()
        self._locations: set[int] = set()
        """Hashes of (source, locator)."""
        self._sources: set[str] = set()
        self._failed_sources: set[str] = set()
        self._failed_patterns: set[re.Pattern[str]] = set()
        self.has_unknown_failure = False
        self.kept: dict[str, int] = {}
        self._empty_folders = EmptyFolders()

    @property
    def enabled(self) -> bool:
        """Whether points may be deleted."""
        return bool(self._sync)

    @property
    def empty(self) -> bool:
        """Whether the stream contained no document."""
        return not self._ids

    def add(self, point_id: str, document: Document) -> None:
        """Record a document of the stream.

        Args:
            point_id: Its point id.
            document: The document.
        """
        if self._sync:
            self._ids.add(UUID(point_id).bytes)
            self._locations.add(hash((document.source, document.locator)))
            self._sources.add(document.source)

    def add_failed(self, source: str | None) -> None:
        """Record a source of which something failed: its points, and those of files below it, are kept.

        Of a glob pattern that matches no file, perhaps because its disk is not mounted or its object store cannot be
        listed, the points of files that would match it are kept.

        Args:
            source: The source, a folder or a pattern; None if it is not known, so that all points have to be kept.
        """
        if source is None:
            self.has_unknown_failure = True
        elif "://" in source:
            folder, tail = split_url(source)
            self._failed_sources.add(f"{folder.rstrip('/')}{tail}")
            if glob.has_magic(folder):
                self._add_failed_pattern(source)
        else:
            self._failed_sources.add(source)
            if glob.has_magic(source) and not os.path.lexists(source):
                self._add_failed_pattern(source)

    def _add_failed_pattern(self, pattern: str) -> None:
        pattern = re.sub(r"\*\*[/\\]", "*", pattern)  # folders of any depth, or none
        self._failed_patterns.add(re.compile(fnmatch.translate(_comparable(pattern))))

    def stale_points(self, store: Store) -> dict[str, bool]:
        """Return the points to delete.

        Args:
            store: The store to scan.

        Returns:
            Whether the stream contained another version of the same source and locator, by point id. Not among them
            are points whose id is no UUID, which others wrote, and points of files whose disk may not be mounted (see
            `kept`).
        """
        stale: dict[str, bool] = {}
        num_foreign = 0
        for point in store.scan():
            try:
                key = UUID(point.id).bytes
            except ValueError:
                num_foreign += 1
                continue
            if key in self._ids or not self._is_stale(point.source):
                continue
            # A file of the stream is there, and so is its disk.
            folder = None if point.source in self._sources else self._empty_folders.above(point.source)
            if folder is None:
                stale[point.id] = hash((point.source, point.locator)) in self._locations
            else:
                self.kept[folder] = self.kept.get(folder, 0) + 1
        if num_foreign:
            log.warning("sync keeps %d points of %s that others wrote: their ids are no UUIDs", num_foreign, store.name)
        return stale

    def _is_stale(self, source: str) -> bool:
        if self._sync == "sources":
            selected = source in self._sources
        else:
            selected = self._sync(source) if callable(self._sync) else bool(self._sync)
        return selected and not self._has_failed(source)

    def _has_failed(self, source: str) -> bool:
        """Return whether the source, a folder above it, or a pattern that it matches failed in this run."""
        return (
            source in self._failed_sources
            or any(parent in self._failed_sources for parent in _parents(source))
            or any(pattern.match(_comparable(source)) for pattern in self._failed_patterns)
        )


def _comparable(source: str) -> str:
    """Return a source or pattern as it is compared: on Windows, letters of paths may be upper or lower case."""
    return source if "://" in source else os.path.normcase(source)


def _parents(source: str) -> Iterator[str]:
    """Yield the folders above a file, or the URLs above that of a file."""
    if "://" not in source:
        yield from map(str, PurePath(source).parents)
        return
    name, tail = split_url(source)
    parts = name.split("/")
    for end in range(len(parts) - 1, 1, -1):
        folder = "/".join(parts[:end]).rstrip("/")
        yield folder
        yield f"{folder}{tail}"  # the URLs of all files of a folder with a query or chain end with it


def delete_stale(tracker: SyncTracker, store: Store, report: Report) -> None:
    """Delete the points that a stream no longer contains, unless it is not certain which these are.

    Args:
        tracker: What the stream contained.
        store: The store.
        report: Where the deleted points are counted, or why there are none.
    """
    if tracker.empty:
        report.not_deleted = "the stream contained no document"
    elif tracker.has_unknown_failure:
        report.not_deleted = "an item of unknown source failed"
    if report.not_deleted:
        log.warning("%s: nothing is deleted from %s", report.not_deleted, store.name)
        return
    stale_points = tracker.stale_points(store)
    ids = list(stale_points)
    for start in range(0, len(ids), DELETE_BATCH):
        store.delete(ids[start : start + DELETE_BATCH])
    for folder, num_points in tracker.kept.items():
        log.warning(
            "sync keeps %d points of files below %s, which is empty or cannot be read: mount its disk. If the files "
            "are deleted, remove the folder, too, or call store.delete_where({'source': ...})",
            num_points,
            folder,
        )
    report.kept = dict(tracker.kept)
    report.replaced = sum(stale_points.values())
    report.deleted = len(stale_points) - report.replaced

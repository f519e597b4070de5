"""Documents into a store: only what is new is embedded, and nothing is marked done before it is written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePath

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.embedder import Embedder
from qwen3vl.errors import ItemError
from qwen3vl.loaders import Skipped
from qwen3vl.store import Point, Store

log = logging.getLogger(__name__)
BATCH = 64
"""Documents whose ids are looked up together, and points that are written together."""


@dataclass(slots=True)
class Report:
    """What an ingestion did.  `failed` are (document or source, reason); `skipped` counts files by suffix."""

    new: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def seen(self) -> int:
        """Documents dealt with so far."""
        return self.new + self.unchanged + len(self.failed)


def ingest(
    documents: Iterable[Document | LoadFailure | Skipped],
    embedder: Embedder,
    store: Store,
    *,
    stale: Callable[[str], bool] | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Embeds and writes the documents that the store does not have yet.

    Points are named by document and recipe, so that a second run, or a run after a crash, goes on where the
    last one stopped: at most one batch is embedded twice.  A document that fails is in the report, is not
    stored, and is tried again by the next run.

    With `stale`, points that this stream did not bring and whose source satisfies it are removed at the end:
    what was changed or deleted.  Points at or below a source that failed are kept, and so is everything when the
    stream brings no document at all: a folder that is empty is more often one that is not mounted.  `progress`
    is called after each step.
    """
    store.create(embedder.recipe)
    run = _Run(embedder, store, progress or (lambda _: None), keep_ids=stale is not None)
    run.embed(documents)
    if stale is not None:
        run.remove(stale)
    return run.report


class _Run:
    """One ingestion: its report, the ids it met, and the documents under way."""

    def __init__(self, embedder: Embedder, store: Store, progress: Callable[[Report], None], keep_ids: bool) -> None:
        self.embedder = embedder
        self.recipe = embedder.recipe
        self.store = store
        self.progress = progress
        self.keep_ids = keep_ids
        self.report = Report()
        self.met: set[str] = set()
        self.spared: set[str] = set()
        self.under_way: dict[int, Document] = {}

    def embed(self, documents: Iterable[Document | LoadFailure | Skipped]) -> None:
        ready: list[Point] = []
        try:
            for index, result in self.embedder.stream(self._inputs(iter(documents))):
                document = self.under_way.pop(index)
                if isinstance(result, ItemError):
                    self._fail(document.source, document.name, result.reason)
                    continue
                ready.append(Point(document.point_id(self.recipe), result, document))
                if len(ready) >= BATCH:
                    self._write(ready)
        finally:
            # Also after Ctrl-C: what is embedded is kept.
            self._write(ready)

    def _inputs(self, documents: Iterator[Document | LoadFailure | Skipped]) -> Iterator[dict[str, str]]:
        """The inputs of documents that are not stored; the rest go to the report."""
        count = 0
        while batch := list(islice(documents, BATCH)):
            fresh: dict[str, Document] = {}
            for each in batch:
                if isinstance(each, Skipped):
                    self.report.skipped[each.suffix] = self.report.skipped.get(each.suffix, 0) + 1
                elif isinstance(each, LoadFailure):
                    self._fail(each.source.partition("#page=")[0], each.source, each.reason)
                else:
                    fresh[each.point_id(self.recipe)] = each
            known = self.store.existing(list(fresh)) if fresh else set()
            for point_id, document in fresh.items():
                if self.keep_ids:
                    self.met.add(point_id)
                if point_id in known:
                    self.report.unchanged += 1
                else:
                    self.under_way[count] = document
                    count += 1
                    yield document.input
            self.progress(self.report)

    def _fail(self, source: str, name: str, reason: str) -> None:
        self.report.failed.append((name, reason))
        self.spared.add(source)
        self.progress(self.report)

    def _write(self, ready: list[Point]) -> None:
        if ready:
            self.store.upsert(ready)
            self.report.new += len(ready)
            ready.clear()
            self.progress(self.report)

    def _spared(self, source: str) -> bool:
        return source in self.spared or any(str(parent) in self.spared for parent in PurePath(source).parents)

    def remove(self, stale: Callable[[str], bool]) -> None:
        if not self.met:
            log.warning("the run found no documents: nothing is removed from the store")
            return
        gone = [
            point_id
            for point_id, source in self.store.scan()
            if point_id not in self.met and stale(source) and not self._spared(source)
        ]
        for start in range(0, len(gone), BATCH):
            self.store.delete(gone[start : start + BATCH])
        self.report.removed = len(gone)
        self.progress(self.report)

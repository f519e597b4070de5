"""One run of an ingestion: a thread that loads ahead, the caller's that embeds, and one that writes behind."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import Any, Protocol

from qwen3vl.documents import RESERVED, Document, LoadFailure
from qwen3vl.errors import ItemError, StoreError
from qwen3vl.ingestion.buffer import BATCH, Buffer, PipelineStopped
from qwen3vl.ingestion.dedup import Claimed, ContentDeduplicator
from qwen3vl.ingestion.report import IngestError, Report
from qwen3vl.ingestion.sync import Sync, SyncTracker
from qwen3vl.inputs import Input
from qwen3vl.loaders import Skipped
from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.media.preview import data_uri, preview
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Point, Store, Vector

log = logging.getLogger(__name__)
LOOKUP_BATCH = 512
"""Documents whose ids are looked up together, at most."""
MAX_LOOKUP_DELAY_S = 0.5
"""Seconds after which they are looked up though they are fewer."""
MAX_FAILED_WRITES = 3
"""Writes in a row that failed, after which the store is taken to be gone."""
POLL_INTERVAL_S = 0.1
"""Seconds between looks at whether to stop."""

LoaderItem = Document | LoadFailure | Skipped


class StreamingEmbedder(Protocol):
    """What `ingest` asks of an embedder."""

    @property
    def recipe(self) -> Recipe: ...
    def stream(self, inputs: Iterable[Input]) -> Iterator[tuple[int, Vector | ItemError]]: ...


class IngestionPipeline:
    """One ingestion.  Each count of the report is kept by one thread."""

    def __init__(
        self,
        embedder: StreamingEmbedder,
        store: Store,
        sync: Sync,
        thumbnails: int,
        progress: Callable[[Report], None] | None,
    ) -> None:
        self.embedder = embedder
        self.recipe = embedder.recipe
        self.store = store
        self.thumbnails = thumbnails
        self.progress = progress or (lambda _: None)
        self.report = Report()
        self.stop = threading.Event()
        self.trouble: list[BaseException] = []
        self.ahead: Queue[Claimed | None] = Queue(2)
        self.buffer = Buffer()
        self.contents = ContentDeduplicator(store)
        self.sync_tracker = SyncTracker(sync)
        self.under_way: dict[int, tuple[str, Document]] = {}

    def run(self, documents: Iterable[LoaderItem]) -> Report:
        self.store.create(self.recipe)
        loader = threading.Thread(target=self._guarded, args=(self._load, documents), daemon=True)
        writer = threading.Thread(target=self._guarded, args=(self._write,), daemon=True)
        try:
            writer.start()
            loader.start()
            self._embed()
        except PipelineStopped:
            pass
        finally:
            # Also after Ctrl-C what is embedded is written.  A loader that waits for a slow source is left behind.
            stopped = self.stop.is_set()
            self.stop.set()
            self.buffer.close()
            if writer.is_alive():
                writer.join()
        if self.trouble:
            self._raise(self.trouble[0])
        if self.sync_tracker.sync and not stopped:
            try:
                self._remove()
            except StoreError as error:
                self._raise(error)
        self.progress(self.report)
        return self.report

    def _raise(self, error: BaseException) -> None:
        if isinstance(error, StoreError):
            told = f"{error}. The ingestion stopped after {self.report.added} points, which are written"
            raise IngestError(f"{told}; the next run goes on from there", self.report) from error
        raise error

    def _guarded(self, work: Callable[..., None], *args: Any) -> None:
        """A thread's work: what it raises ends the run and is raised by it."""
        try:
            work(*args)
        except PipelineStopped:
            pass
        except BaseException as error:
            self.trouble.append(error)
            self.stop.set()
            self.buffer.close()

    def _load(self, documents: Iterable[LoaderItem]) -> None:
        """Hands on what is not stored yet."""
        for batch in self._batches(iter(documents)):
            self._hand_on(self._look_up(batch))
        self._hand_on(None)

    def _batches(self, stream: Iterator[LoaderItem]) -> Iterator[list[LoaderItem]]:
        """LOOKUP_BATCH documents each, fewer of a slow stream; also what came before a stream fails."""
        batch: list[LoaderItem] = []
        began = time.monotonic()
        while True:
            try:
                batch.append(next(stream))
            except StopIteration:
                break
            except BaseException as error:
                # Raised in the caller's thread.
                self.trouble.append(error)
                break
            if len(batch) == LOOKUP_BATCH or time.monotonic() - began > MAX_LOOKUP_DELAY_S:
                yield batch
                batch, began = [], time.monotonic()
        yield batch

    def _look_up(self, batch: list[LoaderItem]) -> Claimed:
        """What of these is to be done; the rest goes to the report."""
        candidates: dict[str, Document] = {}
        for each in batch:
            if isinstance(each, Skipped):
                self.report.skipped[each.suffix] = self.report.skipped.get(each.suffix, 0) + 1
            elif isinstance(each, LoadFailure):
                self._fail(each.source.partition("#page=")[0], each.source, each.reason)
            elif reason := _unfit(each):
                self._fail(each.source, each.name, reason)
            else:
                point_id = self.store.point_id(each, self.recipe)
                self.report.unchanged += point_id in candidates
                candidates[point_id] = each
                self.sync_tracker.add(point_id, each)
        known = self.store.existing(list(candidates))
        self.contents.stored({point_id: candidates[point_id] for point_id in known})
        claimed = self.contents.claim(
            {point_id: each for point_id, each in candidates.items() if point_id not in known}
        )
        self.report.unchanged += len(known) + claimed.repeated
        return claimed

    def _hand_on(self, claimed: Claimed | None) -> None:
        while not self.stop.is_set():
            try:
                self.ahead.put(claimed, timeout=POLL_INTERVAL_S)
            except Full:
                continue
            return
        raise PipelineStopped

    def _embed(self) -> None:
        for index, result in self.embedder.stream(self._inputs()):
            point_id, document = self.under_way.pop(index)
            if isinstance(result, ItemError):
                for same in self.contents.failed(document):
                    self._fail(same.source, same.name, result.reason)
            else:
                self.buffer.put(self.contents.embedded(point_id, document, result))
            self.progress(self.report)

    def _inputs(self) -> Iterator[dict[str, str]]:
        count = 0
        while (claimed := self._next()) is not None:
            self.buffer.put(claimed.ready)
            for point_id, document in claimed.fresh:
                self.under_way[count] = (point_id, document)
                count += 1
                yield document.input

    def _next(self) -> Claimed | None:
        while not self.stop.is_set():
            self.progress(self.report)
            try:
                return self.ahead.get(timeout=POLL_INTERVAL_S)
            except Empty:
                continue
        raise PipelineStopped

    def _write(self) -> None:
        failures = 0
        while points := self.buffer.take():
            points = [self._with_thumbnail(point) for point in points]
            try:
                self._upsert(points)
                failures = 0
            except StoreError as error:
                failures += 1
                if not error.transient or failures == MAX_FAILED_WRITES:
                    raise
                self._drop(points, error)

    def _upsert(self, points: list[Point]) -> None:
        """Writes points; where the store refuses what it is sent, finds out which of them it is."""
        try:
            self.store.upsert(points)
        except StoreError as error:
            if not error.invalid_request:
                raise
            if len(points) == 1:
                self._drop(points, error)
                return
            middle = len(points) // 2
            self._upsert(points[:middle])
            self._upsert(points[middle:])
        else:
            self.contents.written(points)
            self.report.added += len(points)

    def _drop(self, points: list[Point], error: StoreError) -> None:
        self.contents.dropped(points)
        for point in points:
            self._fail(point.document.source, point.document.name, f"it was not written: {error}")

    def _with_thumbnail(self, point: Point) -> Point:
        # An embedder without a policy opens no media itself.
        picture = preview(point.document, getattr(self.embedder, "policy", DEFAULT_POLICY)) if self.thumbnails else None
        uri = None if picture is None else data_uri(picture, self.thumbnails)
        if uri is None:
            return point
        metadata = {**point.document.metadata, "thumbnail": uri}
        return replace(point, document=replace(point.document, metadata=metadata))

    def _fail(self, source: str, name: str, reason: str) -> None:
        self.report.failed.append((name, reason))
        self.sync_tracker.failed.add(source)

    def _remove(self) -> None:
        """Removes what the stream did not bring, as `sync` says."""
        if not self.sync_tracker.ids:
            log.warning("the run found no documents: nothing is removed from the store")
            return
        gone = self.sync_tracker.gone(self.store)
        ids = list(gone)
        for start in range(0, len(ids), BATCH):
            self.store.delete(ids[start : start + BATCH])
        self.report.replaced = sum(gone.values())
        self.report.deleted = len(gone) - self.report.replaced


def _unfit(document: Document) -> str:
    """Why a document cannot be stored, if it cannot."""
    if taken := sorted(RESERVED & document.metadata.keys()):
        return f"its metadata use {', '.join(taken)}, where its own fields are stored; name them otherwise"
    if odd := [key for key in document.metadata if not isinstance(key, str) or not key]:
        return f"its metadata have keys that are not words: {odd}"
    try:
        json.dumps(document.to_payload(), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        return f"its text or metadata cannot be stored as JSON: {error}"
    return ""

"""One run of an ingestion: threads that read and look up, the caller's thread that embeds, and one that writes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from inspect import GEN_CLOSED, getgeneratorstate
from queue import Empty, Full, Queue
from typing import Any

import numpy as np

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import ItemError, StoreError
from qwen3vl.ingestion.buffer import (
    LOOKUP_BATCH,
    MAX_LOOKUP_DELAY_S,
    MAX_UNWRITTEN_POINTS,
    MAX_WRITE_DELAY_S,
    MIN_WRITE_BATCH,
    POLL_INTERVAL_S,
    BatchBuffer,
    PipelineStopped,
)
from qwen3vl.ingestion.dedup import Claim, ContentDeduplicator
from qwen3vl.ingestion.failures import describe_error, name_of, reraise, source_of
from qwen3vl.ingestion.report import Report
from qwen3vl.ingestion.sync import Sync, SyncTracker, delete_stale
from qwen3vl.ingestion.thumbnails import add_thumbnail
from qwen3vl.ingestion.types import LoaderItem, StreamingEmbedder
from qwen3vl.ingestion.validation import check_storable
from qwen3vl.ingestion.writing import upsert_valid
from qwen3vl.loaders import Skipped
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.stores import Point, StopIndexing, Store, on_indexing

log = logging.getLogger(__name__)
MAX_INPUT_WAIT_S = 1.0
"""Seconds that the embedder, while it holds documents, waits for further ones. More than `MAX_LOOKUP_DELAY_S`, so that
a stream that is slow, but does not pause, is embedded in one call."""
MAX_FAILED_WRITES = 3
"""Number of consecutive failed writes after which the run ends: the store is unreachable."""


class IngestionPipeline:
    """One run of an ingestion. Each count of the report is changed by only one of the threads.

    Args:
        embedder: Embeds the documents.
        store: Where they are written.
        sync: Which points are deleted at the end.
        thumbnails: Maximum number of characters of a thumbnail; 0 for none.
        progress: Called with the report in the thread of `run`.
    """

    def __init__(
        self,
        embedder: StreamingEmbedder,
        store: Store,
        sync: Sync,
        thumbnails: int,
        progress: Callable[[Report], None] | None,
    ) -> None:
        self.report = Report()
        self._embedder = embedder
        self._recipe = embedder.recipe
        self._store = store
        self._thumbnails = thumbnails
        # An embedder without a policy does not open media itself.
        self._policy: MediaPolicy = getattr(embedder, "policy", DEFAULT_POLICY)
        self._progress = progress or (lambda _: None)
        self._stop = threading.Event()
        self._is_cancelled = False  # whether no index is to be built any more
        self._errors: list[BaseException] = []
        self._unclaimed = BatchBuffer[LoaderItem](LOOKUP_BATCH, LOOKUP_BATCH, MAX_LOOKUP_DELAY_S)
        self._claims: Queue[Claim | None] = Queue(2)
        self._unwritten = BatchBuffer[Point](MAX_UNWRITTEN_POINTS, MIN_WRITE_BATCH, MAX_WRITE_DELAY_S)
        self._deduplicator = ContentDeduplicator(store)
        self._sync_tracker = SyncTracker(sync)
        self._embedding: dict[int, tuple[str, Document]] = {}
        """What the embedder holds, by index."""
        self._all_claimed = False

    def stop(self) -> None:
        """Stop loading, embedding and indexing; `run` writes what is embedded, and returns."""
        self._is_cancelled = True
        self._stop.set()

    def run(self, documents: Iterable[LoaderItem]) -> Report:
        """Ingest documents. A pipeline runs once.

        An exception of the stream, the embedder or `progress` is raised after all embedded points have been written.

        Args:
            documents: The stream.

        Returns:
            What was done.

        Raises:
            IngestError: The store rejects all requests, or cannot be reached.
            RecipeError: The collection has vectors of another recipe.
            StoreError: The collection cannot be created.
        """
        self._store.create(self._recipe)
        writer = self._thread(self._write)
        try:
            writer.start()
            self._thread(self._claim_all).start()
            self._thread(self._read, documents).start()
            self._embed()
        except PipelineStopped:
            pass
        except BaseException:
            self._is_cancelled = True
            raise
        finally:
            # Also after Ctrl-C, everything that is embedded is written. A thread that waits for a slow source is not
            # waited for.
            stopped = self._stop.is_set()
            self._is_cancelled |= stopped
            self._end_threads()
            self._join(writer)
        if self._errors:
            reraise(self._errors[0], self.report)
        if self._sync_tracker.enabled and not stopped:
            try:
                delete_stale(self._sync_tracker, self._store, self.report)
            except StoreError as error:
                reraise(error, self.report)
        if not stopped:
            self._build_index()
        self._progress(self.report)
        return self.report

    def _thread(self, work: Callable[..., None], *args: Any) -> threading.Thread:
        """Return a thread. An exception in it stops the other threads, and `run` raises it."""

        def run() -> None:
            try:
                work(*args)
            except PipelineStopped:
                pass
            except BaseException as error:
                self._errors.append(error)
                self._end_threads()

        return threading.Thread(target=run, daemon=True)

    def _join(self, writer: threading.Thread) -> None:
        """Wait until all points are written. The first Ctrl-C meanwhile only ends the building of the index."""
        try:
            while writer.is_alive():
                writer.join(POLL_INTERVAL_S)
                if not self._is_cancelled:
                    self._progress(self.report)
        except BaseException:
            if not self._is_cancelled:
                self._is_cancelled = True
                writer.join()
            raise

    def _end_threads(self) -> None:
        self._stop.set()
        self._unclaimed.close()
        self._unwritten.close()

    # The thread that reads the stream, which may pause for any time.

    def _read(self, documents: Iterable[LoaderItem]) -> None:
        """Read the stream. An error in it ends it like its end, and is recorded for `run` to raise."""
        try:
            self._unclaimed.put(documents)
        except BaseException as error:
            if not self._stop.is_set():
                self._errors.append(error)
        self._unclaimed.close()

    # The thread that looks up what is stored.

    def _claim_all(self) -> None:
        while (batch := self._unclaimed.take()) and not self._stop.is_set():
            documents = self._find_new(batch)
            while documents:
                claim = self._deduplicator.claim(documents)
                self._put_claim(claim)
                documents = claim.deferred
                while not self._deduplicator.wait(documents, POLL_INTERVAL_S):
                    if self._stop.is_set():
                        raise PipelineStopped
        self._put_claim(None)

    def _find_new(self, batch: Sequence[LoaderItem]) -> dict[str, Document]:
        """Return the documents that are not stored, by point id; count all other items in the report."""
        documents: dict[str, Document] = {}
        for item in batch:
            if isinstance(item, Skipped):
                self.report.skipped[item.suffix] = self.report.skipped.get(item.suffix, 0) + 1
            elif isinstance(item, LoadFailure):
                self._add_failure(item, item.reason)
            elif (point_id := self._point_id(item)) is not None:
                self.report.unchanged += point_id in documents
                documents[point_id] = item
                self._sync_tracker.add(point_id, item)
        repeated_ids = self._deduplicator.find_repeated(documents)
        stored_ids = self._store.existing([point_id for point_id in documents if point_id not in repeated_ids])
        self._deduplicator.add_stored({point_id: documents[point_id] for point_id in stored_ids})
        known_ids = repeated_ids | stored_ids
        self.report.unchanged += len(known_ids)
        return {point_id: document for point_id, document in documents.items() if point_id not in known_ids}

    def _point_id(self, document: Document) -> str | None:
        """Return a document's point id, or record a failure and return None if the document cannot be stored.

        This also reads the properties that other threads need: if one of them raises, it does so here.
        """
        try:
            check_storable(document)
            _ = document.input, document.content_key
            return self._store.point_id(document, self._recipe)
        except Exception as error:  # objects of the caller may raise anything
            self._add_failure(document, describe_error(error))
            return None

    def _put_claim(self, claim: Claim | None) -> None:
        while not self._stop.is_set():
            try:
                self._claims.put(claim, timeout=POLL_INTERVAL_S)
            except Full:
                continue
            return
        raise PipelineStopped

    # The caller's thread.

    def _embed(self) -> None:
        """Embed what is claimed, in one call of the embedder, and in a further one after each pause of the stream.

        The embedder takes inputs in this thread, and hands out no vector while it waits for one.
        """
        while not self._all_claimed:
            inputs = self._inputs()
            for index, result in self._embedder.stream(inputs):
                point_id, document = self._embedding.pop(index)
                if isinstance(result, ItemError):
                    self._add_not_embedded(document, result.reason)
                elif not np.isfinite(result).all():  # searches would never find it
                    self._add_not_embedded(document, "the embedder returned a vector with NaN or infinity")
                else:
                    self._put_unwritten(self._deduplicator.add_vector(point_id, document, result))
                self._progress(self.report)
            while self._embedding:
                _, (_, document) = self._embedding.popitem()
                self._add_not_embedded(document, "the embedder returned neither a vector nor an error for it")
            if getgeneratorstate(inputs) != GEN_CLOSED:
                raise RuntimeError(f"{type(self._embedder).__name__}.stream ended before it had taken all inputs")

    def _put_unwritten(self, points: Iterable[Point]) -> None:
        self._unwritten.put(points, on_wait=lambda: self._progress(self.report))

    def _add_not_embedded(self, document: Document, reason: str) -> None:
        for failed in self._deduplicator.remove_content(document):
            self._add_failure(failed, reason)

    def _inputs(self) -> Generator[dict[str, str]]:
        """Yield inputs to embed until the stream ends or pauses; pass on points whose vector is known already."""
        index = 0
        last_input_s = time.monotonic()
        while not self._embedding or time.monotonic() - last_input_s < MAX_INPUT_WAIT_S:
            self._progress(self.report)
            if self._stop.is_set():
                raise PipelineStopped
            try:
                claim = self._claims.get(timeout=POLL_INTERVAL_S)
            except Empty:
                continue
            if claim is None:
                self._all_claimed = True
                return
            self._put_unwritten(claim.ready)
            for point_id, document in claim.to_embed:
                self._embedding[index] = (point_id, document)
                index += 1
                yield document.input
                last_input_s = time.monotonic()
            if claim.deferred:  # they wait for vectors that the embedder would not return before its next input
                return

    # The writer's thread.

    def _write(self) -> None:
        num_failed_writes = 0
        while points := self._unwritten.take():
            unfinished = {point.id: add_thumbnail(point, self._thumbnails, self._policy) for point in points}
            try:
                self._upsert(unfinished)
                num_failed_writes = 0
            except StoreError as error:
                num_failed_writes += 1
                if not error.transient or num_failed_writes == MAX_FAILED_WRITES:
                    raise
                self._add_unwritten(list(unfinished.values()), error)

    def _upsert(self, unfinished: dict[str, Point]) -> None:
        """Write points. Those that are written, and those that the store rejects, are removed from the dict."""

        def on_written(points: list[Point]) -> None:
            self._deduplicator.mark_written(points)
            self.report.added += len(points)
            for point in points:
                del unfinished[point.id]

        def on_rejected(point: Point, error: Exception) -> None:
            self._add_unwritten([point], error)
            del unfinished[point.id]

        try:
            with on_indexing(self._show_indexing):
                upsert_valid(self._store, list(unfinished.values()), on_written, on_rejected)
        finally:
            self.report.indexing_s = 0.0

    def _show_indexing(self, seconds: float) -> None:
        if self._is_cancelled:
            raise StopIndexing
        self.report.indexing_s = seconds

    def _add_unwritten(self, points: list[Point], error: Exception) -> None:
        """Record points as failures; equal contents of later documents are embedded again."""
        self._deduplicator.remove_points(points)
        for point in points:
            self._add_failure(point.document, f"it was not written: {describe_error(error)}")

    def _build_index(self) -> None:
        def progress(seconds: float) -> None:
            self._show_indexing(seconds)
            self._progress(self.report)

        try:
            self._store.build_index(progress)
        except StopIndexing:
            pass
        except StoreError as error:  # all points are written, and searches find them without an index, only slower
            log.warning("%s", error)

    # All threads.

    def _add_failure(self, item: Document | LoadFailure, reason: str) -> None:
        self.report.failed.append((name_of(item), reason))
        self._sync_tracker.add_failed(source_of(item))

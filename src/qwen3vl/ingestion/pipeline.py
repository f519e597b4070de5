"""One run of an ingestion: a thread that loads, the caller's thread that embeds, and a thread that writes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from queue import Empty, Full, Queue
from typing import Any

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import ItemError, StoreError
from qwen3vl.ingestion.buffer import PipelineStopped, WriteBuffer
from qwen3vl.ingestion.dedup import Claim, ContentDeduplicator
from qwen3vl.ingestion.failures import describe_error, name_of, source_of
from qwen3vl.ingestion.report import IngestError, Report
from qwen3vl.ingestion.sync import Sync, SyncTracker, delete_stale
from qwen3vl.ingestion.types import LoaderItem, StreamingEmbedder
from qwen3vl.ingestion.validation import check_storable
from qwen3vl.ingestion.writing import upsert_valid
from qwen3vl.loaders import Skipped
from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.media.preview import data_uri, preview
from qwen3vl.stores import Point, Store

log = logging.getLogger(__name__)
LOOKUP_BATCH = 512
"""Maximum number of documents whose ids are looked up in one request."""
MAX_LOOKUP_DELAY_S = 0.5
"""Seconds after which fewer documents are looked up."""
MAX_FAILED_WRITES = 3
"""Number of consecutive failed writes after which the run ends: the store is unreachable."""
POLL_INTERVAL_S = 0.1
"""Seconds between checks of whether to stop."""


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
        self._progress = progress or (lambda _: None)
        self._stop = threading.Event()
        self._is_cancelled = False
        self._errors: list[BaseException] = []
        self._claims: Queue[Claim | None] = Queue(2)
        self._buffer = WriteBuffer()
        self._deduplicator = ContentDeduplicator(store)
        self._sync_tracker = SyncTracker(sync)
        self._embedding: dict[int, tuple[str, Document]] = {}

    def stop(self) -> None:
        """Stop loading, embedding and indexing; `run` writes what is embedded, and returns."""
        self._is_cancelled = True
        self._stop.set()

    def run(self, documents: Iterable[LoaderItem]) -> Report:
        """Ingest documents. A pipeline runs once.

        An exception of the stream, of the embedder or of `progress` is raised, too, after all points that are embedded
        have been written.

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
        loader = threading.Thread(target=self._run_thread, args=(self._load, documents), daemon=True)
        writer = threading.Thread(target=self._run_thread, args=(self._write,), daemon=True)
        try:
            writer.start()
            loader.start()
            self._embed()
        except PipelineStopped:
            pass
        finally:
            # Also after Ctrl-C, everything that is embedded is written. A loader that waits for a slow source is
            # not waited for.
            stopped = self._stop.is_set()
            self._stop.set()
            self._buffer.close()
            if writer.is_alive():
                writer.join()
        if self._errors:
            self._reraise(self._errors[0])
        if self._sync_tracker.enabled and not stopped:
            try:
                delete_stale(self._sync_tracker, self._store, self.report)
            except StoreError as error:
                self._reraise(error)
        if not stopped:
            self._build_index()
        self._progress(self.report)
        return self.report

    def _reraise(self, error: BaseException) -> None:
        """Raise the error that ended the run: a `StoreError` as an `IngestError`, which has the report."""
        if isinstance(error, StoreError):
            raise IngestError(
                f"{error}. The ingestion stopped after {self.report.added} points, which are written; the next run "
                "goes on from there",
                self.report,
            ) from error
        raise error

    def _run_thread(self, work: Callable[..., None], *args: Any) -> None:
        """Run a thread's work. An exception stops the other threads, and `run` raises it."""
        try:
            work(*args)
        except PipelineStopped:
            pass
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
            self._buffer.close()

    # The loader's thread.

    def _load(self, documents: Iterable[LoaderItem]) -> None:
        for batch in self._batches(iter(documents)):
            self._put_claim(self._claim_new(batch))
        self._put_claim(None)

    def _batches(self, stream: Iterator[LoaderItem]) -> Iterator[list[LoaderItem]]:
        """Yield the stream in batches of up to `LOOKUP_BATCH` items, smaller ones if it is slow; the last may be empty.

        An error of the stream ends it like its end, and is recorded for `run` to raise.
        """
        batch: list[LoaderItem] = []
        start = time.monotonic()
        while True:
            try:
                batch.append(next(stream))
            except StopIteration:
                break
            except BaseException as error:
                self._errors.append(error)
                break
            if len(batch) == LOOKUP_BATCH or time.monotonic() - start > MAX_LOOKUP_DELAY_S:
                yield batch
                batch, start = [], time.monotonic()
        yield batch

    def _claim_new(self, batch: list[LoaderItem]) -> Claim:
        """Return which documents of a batch are to be embedded or written; count all other items in the report."""
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
        stored_ids = self._store.existing(list(documents))
        self._deduplicator.add_stored({point_id: documents[point_id] for point_id in stored_ids})
        claim = self._deduplicator.claim(
            {point_id: document for point_id, document in documents.items() if point_id not in stored_ids}
        )
        self.report.unchanged += len(stored_ids) + claim.num_repeated
        return claim

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
        for index, result in self._embedder.stream(self._inputs()):
            point_id, document = self._embedding.pop(index)
            if isinstance(result, ItemError):
                for failed in self._deduplicator.remove_content(document):
                    self._add_failure(failed, result.reason)
            else:
                self._buffer.put(self._deduplicator.add_vector(point_id, document, result))
            self._progress(self.report)

    def _inputs(self) -> Iterator[dict[str, str]]:
        """Yield the inputs to embed, and hand over to the writer the points whose vector is known already."""
        index = 0
        while (claim := self._get_claim()) is not None:
            self._buffer.put(claim.ready)
            for point_id, document in claim.to_embed:
                self._embedding[index] = (point_id, document)
                index += 1
                yield document.input

    def _get_claim(self) -> Claim | None:
        while not self._stop.is_set():
            self._progress(self.report)
            try:
                return self._claims.get(timeout=POLL_INTERVAL_S)
            except Empty:
                continue
        raise PipelineStopped

    # The writer's thread.

    def _write(self) -> None:
        num_failed_writes = 0
        while points := self._buffer.take():
            unfinished = {point.id: self._with_thumbnail(point) for point in points}
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
            self._add_written(points)
            for point in points:
                del unfinished[point.id]

        def on_rejected(point: Point, error: Exception) -> None:
            self._add_unwritten([point], error)
            del unfinished[point.id]

        upsert_valid(self._store, list(unfinished.values()), on_written, on_rejected)

    def _add_written(self, points: list[Point]) -> None:
        self._deduplicator.mark_written(points)
        self.report.added += len(points)

    def _add_unwritten(self, points: list[Point], error: Exception) -> None:
        """Record points as failures; equal contents of later documents are embedded again."""
        self._deduplicator.remove_points(points)
        for point in points:
            self._add_failure(point.document, f"it was not written: {describe_error(error)}")

    def _with_thumbnail(self, point: Point) -> Point:
        """Return the point with a thumbnail in its metadata, if thumbnails are wanted and one can be made."""
        if not self._thumbnails:
            return point
        try:
            # An embedder without a policy does not open media itself.
            image = preview(point.document, getattr(self._embedder, "policy", DEFAULT_POLICY))
            uri = None if image is None else data_uri(image, self._thumbnails)
        except Exception:  # a thumbnail is no reason to lose the point
            log.warning("no thumbnail of %s", point.document.name, exc_info=True)
            return point
        if uri is None:
            return point
        metadata = {**point.document.metadata, "thumbnail": uri}
        return replace(point, document=replace(point.document, metadata=metadata))

    def _build_index(self) -> None:
        def progress(seconds: float) -> None:
            if self._is_cancelled:
                raise PipelineStopped
            self.report.indexing_s = seconds
            self._progress(self.report)

        try:
            self._store.build_index(progress)
        except PipelineStopped:
            pass
        except StoreError as error:  # all points are written, and searches find them without an index, only slower
            log.warning("%s", error)

    # All threads.

    def _add_failure(self, item: Document | LoadFailure, reason: str) -> None:
        self.report.failed.append((name_of(item), reason))
        self._sync_tracker.add_failed(source_of(item))

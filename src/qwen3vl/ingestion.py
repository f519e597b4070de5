"""Documents into a store: only what is new is embedded, and nothing is marked done before it is written.

    documents -> ids, and which are stored already -> vectors -> points written

Loading, embedding and writing overlap: the caller's thread embeds, one thread loads ahead and one writes behind.
Nothing between them grows with the stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from queue import Empty, Full, Queue
from typing import Any, Literal, Protocol
from uuid import UUID

from qwen3vl.documents import RESERVED, Document, LoadFailure
from qwen3vl.errors import ItemError, StoreError
from qwen3vl.inputs import Input
from qwen3vl.loaders import Skipped
from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.media.preview import data_uri, still, strip
from qwen3vl.recipe import Recipe
from qwen3vl.sameness import Claimed, Contents
from qwen3vl.store import Point, Store, Vector

log = logging.getLogger(__name__)
LOOKUP = 256
"""Documents whose ids are looked up together, at most."""
SLOW = 0.5
"""Seconds after which they are looked up though they are fewer."""
BATCH = 256
"""Points that are embedded and not yet written, at most: what a kill costs."""
FEW = 128
"""Points that are worth a write of their own, before PATIENCE is over."""
PATIENCE = 0.5
"""Seconds that an embedded point waits for company."""
GIVE_UP = 3
"""Writes in a row that failed, after which the store is taken to be gone."""
TURN = 0.1
"""Seconds between looks at whether to stop."""

Loaded = Document | LoadFailure | Skipped
Sync = bool | Literal["sources"] | Callable[[str], bool]


class Embeds(Protocol):
    """What `ingest` asks of an embedder."""

    @property
    def recipe(self) -> Recipe: ...
    def stream(self, inputs: Iterable[Input]) -> Iterator[tuple[int, Vector | ItemError]]: ...


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


def ingest(
    documents: Iterable[Loaded],
    embedder: Embeds,
    store: Store,
    *,
    sync: Sync = False,
    thumbnails: int = 0,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Embeds and writes the documents that the store does not have yet.

    Points are named by document and recipe, so that a second run, or a run after a crash, goes on where the
    last one stopped: at most BATCH points, and what was in the forward pass, are embedded twice.  Equal documents
    are stored once; documents that show the same under different names are embedded once, as long as no more
    than 65,536 other contents lie between them.  A document that fails is in the report, is not stored, and is
    tried again by the next run.  Metadata are not part of the name: where only they change, nothing is written.

    `sync` removes, at the end, points that this stream did not bring: True all of them, "sources" those of the
    sources that it brought, a function those whose source satisfies it.  Points at or below a source that
    failed are kept, and so is everything when the stream brings no document at all: a folder that is empty is
    more often one that is not mounted.

    With `thumbnails`, a small picture of each picture, page and clip is stored under `thumbnail` in its metadata:
    a JPEG as a data URI, of at most so many characters.  Otherwise media are stored as references only.

    `progress` is called after each step, in the calling thread.  Ctrl-C writes what is embedded, then is raised.

    Raises `RecipeError` where the collection is of another recipe, and `IngestError` where the store refuses or
    stays out of reach; what a passing trouble kept from being written is in the report instead.
    """
    return _Run(embedder, store, sync, thumbnails, progress).run(documents)


async def aingest(
    documents: Iterable[Loaded] | AsyncIterable[Loaded],
    embedder: Embeds,
    store: Store,
    *,
    sync: Sync = False,
    thumbnails: int = 0,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """`ingest` without blocking the event loop, for stores of either kind and asynchronous streams too.

    `progress` is called in the loop.  When cancelled, it writes what is embedded first.
    """
    loop = asyncio.get_running_loop()
    told = None if progress is None else _in_loop(loop, progress)
    run = _Run(embedder, store, sync, thumbnails, told)
    stream = documents if isinstance(documents, Iterable) else _bridged(documents, loop)
    ended, outcome = asyncio.Event(), _Outcome()

    def work() -> None:
        try:
            outcome.report = run.run(stream)
        except BaseException as error:
            outcome.error = error
        loop.call_soon_threadsafe(ended.set)

    cancelled: asyncio.CancelledError | None = None
    with store.serving(loop):
        # A thread of its own: the loop's few may all be needed by what the stream and the client await.
        threading.Thread(target=work, daemon=True).start()
        while not ended.is_set():
            try:
                await ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                run.stop.set()
    if cancelled is not None:
        raise cancelled
    if outcome.error is not None:
        raise outcome.error
    return outcome.report


@dataclass(slots=True)
class _Outcome:
    report: Report = field(default_factory=Report)
    error: BaseException | None = None


def _in_loop(loop: asyncio.AbstractEventLoop, progress: Callable[[Report], None]) -> Callable[[Report], None]:
    def tell(report: Report) -> None:
        loop.call_soon_threadsafe(progress, report)

    return tell


def _bridged(documents: AsyncIterable[Loaded], loop: asyncio.AbstractEventLoop) -> Iterator[Loaded]:
    iterator = aiter(documents)

    async def step() -> list[Loaded]:
        async for each in iterator:
            return [each]
        return []

    def wait(work: Coroutine[Any, Any, Any]) -> Any:
        try:
            return asyncio.run_coroutine_threadsafe(work, loop).result()
        except RuntimeError:
            if not loop.is_closed():
                raise
            # This thread was left behind.
            work.close()
            raise _Stopped from None

    while found := wait(step()):
        yield from found


class _Stopped(Exception):  # noqa: N818 (not an error)
    """A thread is asked to end."""


class _Buffer:
    """Points between embedding and writing: at most BATCH, those being written among them."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.points: list[Point] = []
        self.writing = 0
        self.closed = False

    def put(self, points: list[Point]) -> None:
        """Adds points, when there is room; raises `_Stopped` where nobody takes them any more."""
        for point in points:
            with self.changed:
                while len(self.points) + self.writing >= BATCH and not self.closed:
                    self.changed.wait()
                if self.closed:
                    raise _Stopped
                self.points.append(point)
                self.changed.notify_all()

    def take(self) -> list[Point]:
        """All points that wait, when they are enough or have waited long; none when no more will come."""
        with self.changed:
            self.writing = 0
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.points or self.closed)
            self.changed.wait_for(lambda: len(self.points) >= FEW or self.closed, PATIENCE)
            taken, self.points = self.points, []
            self.writing = len(taken)
            return taken

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()


class _Met:
    """What the stream brought, for `sync`: ids and places as 16 bytes each, and sources that failed."""

    def __init__(self) -> None:
        self.ids: set[bytes] = set()
        self.places: set[int] = set()
        self.sources: set[str] = set()
        self.failed: set[str] = set()

    def add(self, point_id: str, document: Document) -> None:
        self.ids.add(UUID(point_id).bytes)
        self.places.add(hash((document.source, document.place)))
        self.sources.add(document.source)

    def spared(self, source: str) -> bool:
        """Whether the source, or a folder above it, failed in this run."""
        return source in self.failed or any(str(parent) in self.failed for parent in PurePath(source).parents)


class _Run:
    """One ingestion.  Each count of the report is kept by one thread."""

    def __init__(
        self,
        embedder: Embeds,
        store: Store,
        sync: Sync,
        thumbnails: int,
        progress: Callable[[Report], None] | None,
    ) -> None:
        if not (isinstance(sync, bool) or sync == "sources" or callable(sync)):
            raise ValueError(f"sync is {sync!r}; it may be True, False, 'sources' or a function of a source")
        self.embedder = embedder
        self.recipe = embedder.recipe
        self.store = store
        self.sync = sync
        self.thumbnails = thumbnails
        self.progress = progress or (lambda _: None)
        self.report = Report()
        self.stop = threading.Event()
        self.trouble: list[BaseException] = []
        self.ahead: Queue[Claimed | None] = Queue(2)
        self.buffer = _Buffer()
        self.contents = Contents(store)
        self.met = _Met()
        self.under_way: dict[int, tuple[str, Document]] = {}

    def run(self, documents: Iterable[Loaded]) -> Report:
        self.store.create(self.recipe)
        loader = threading.Thread(target=self._guarded, args=(self._load, documents), daemon=True)
        writer = threading.Thread(target=self._guarded, args=(self._write,), daemon=True)
        try:
            writer.start()
            loader.start()
            self._embed()
        except _Stopped:
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
        if self.sync and not stopped:
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
        except _Stopped:
            pass
        except BaseException as error:
            self.trouble.append(error)
            self.stop.set()
            self.buffer.close()

    def _load(self, documents: Iterable[Loaded]) -> None:
        """Hands on what is not stored yet."""
        for batch in self._batches(iter(documents)):
            self._hand_on(self._look_up(batch))
        self._hand_on(None)

    def _batches(self, stream: Iterator[Loaded]) -> Iterator[list[Loaded]]:
        """LOOKUP documents each, fewer of a slow stream; also what came before a stream fails."""
        batch: list[Loaded] = []
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
            if len(batch) == LOOKUP or time.monotonic() - began > SLOW:
                yield batch
                batch, began = [], time.monotonic()
        yield batch

    def _look_up(self, batch: list[Loaded]) -> Claimed:
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
                if self.sync:
                    self.met.add(point_id, each)
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
                self.ahead.put(claimed, timeout=TURN)
            except Full:
                continue
            return
        raise _Stopped

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
                return self.ahead.get(timeout=TURN)
            except Empty:
                continue
        raise _Stopped

    def _write(self) -> None:
        failures = 0
        while points := self.buffer.take():
            points = [self._with_thumbnail(point) for point in points]
            try:
                self._upsert(points)
                failures = 0
            except StoreError as error:
                failures += 1
                if not error.passing or failures == GIVE_UP:
                    raise
                self._drop(points, error)

    def _upsert(self, points: list[Point]) -> None:
        """Writes points; where the store refuses what it is sent, finds out which of them it is."""
        try:
            self.store.upsert(points)
        except StoreError as error:
            if not error.refused:
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
        document = point.document
        if not self.thumbnails or (document.image is None and document.video is None):
            return point
        # An embedder without a policy opens no media itself.
        policy = getattr(self.embedder, "policy", DEFAULT_POLICY)
        try:
            picture = still(document.image, policy) if document.image is not None else strip(document.video, policy)
        except Exception as error:  # what could be embedded may have gone since
            log.warning("no thumbnail of %s: %s", document.name, error)
            return point
        uri = data_uri(picture, self.thumbnails)
        metadata = {**document.metadata, **({"thumbnail": uri} if uri else {})}
        return replace(point, document=replace(document, metadata=metadata))

    def _fail(self, source: str, name: str, reason: str) -> None:
        self.report.failed.append((name, reason))
        self.met.failed.add(source)

    def _remove(self) -> None:
        """Removes what the stream did not bring, as `sync` says."""
        if not self.met.ids:
            log.warning("the run found no documents: nothing is removed from the store")
            return
        gone: dict[str, bool] = {}
        for stored in self.store.scan():
            if UUID(stored.id).bytes not in self.met.ids and self._stale(stored.source):
                gone[stored.id] = hash((stored.source, stored.place)) in self.met.places
        ids = list(gone)
        for start in range(0, len(ids), BATCH):
            self.store.delete(ids[start : start + BATCH])
        self.report.replaced = sum(gone.values())
        self.report.deleted = len(gone) - self.report.replaced

    def _stale(self, source: str) -> bool:
        if self.sync == "sources":
            wanted = source in self.met.sources
        else:
            wanted = self.sync(source) if callable(self.sync) else True
        return wanted and not self.met.spared(source)


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

"""`ingest`, and `aingest` for event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from qwen3vl.ingestion.buffer import PipelineStopped
from qwen3vl.ingestion.pipeline import IngestionPipeline, LoaderItem, StreamingEmbedder
from qwen3vl.ingestion.report import Report
from qwen3vl.ingestion.sync import Sync
from qwen3vl.stores import Store


def ingest(
    documents: Iterable[LoaderItem],
    embedder: StreamingEmbedder,
    store: Store,
    *,
    sync: Sync = False,
    thumbnails: int = 0,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """StreamingEmbedder and writes the documents that the store does not have yet.

    Points are named by document and recipe, so that a second run, or a run after a crash, goes on where the
    last one stopped: at most BATCH points, and what was in the forward pass, are embedded twice.  Equal documents
    are stored once; documents that show the same under different names are embedded once, as long as no more
    than 65,536 other contents lie between them.  A document that fails is in the report, is not stored, and is
    tried again by the next run.  Metadata are not part of the name: where only they change, nothing is written.

    `sync` removes, at the end, points that this stream did not bring: True all of them, "sources" those of the
    sources that it sync_tracker, a function those whose source satisfies it.  Points at or below a source that
    failed are kept, and so is everything when the stream brings no document at all: a folder that is empty is
    more often one that is not mounted.

    With `thumbnails`, a small picture of each picture, page and clip is stored under `thumbnail` in its metadata:
    a JPEG as a data URI, of at most so many characters.  Otherwise media are stored as references only.

    `progress` is called after each step, in the calling thread.  Ctrl-C writes what is embedded, then is raised.

    Raises `RecipeError` where the collection is of another recipe, and `IngestError` where the store refuses or
    stays out of reach; what a passing trouble kept from being written is in the report instead.
    """
    return IngestionPipeline(embedder, store, sync, thumbnails, progress).run(documents)


async def aingest(
    documents: Iterable[LoaderItem] | AsyncIterable[LoaderItem],
    embedder: StreamingEmbedder,
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
    run = IngestionPipeline(embedder, store, sync, thumbnails, told)
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


def _bridged(documents: AsyncIterable[LoaderItem], loop: asyncio.AbstractEventLoop) -> Iterator[LoaderItem]:
    iterator = aiter(documents)

    async def step() -> list[LoaderItem]:
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
            raise PipelineStopped from None

    while found := wait(step()):
        yield from found

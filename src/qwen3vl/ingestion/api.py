"""`ingest`, and `aingest` for event loops."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import dataclass, field

from qwen3vl.ingestion.pipeline import IngestionPipeline
from qwen3vl.ingestion.report import Report
from qwen3vl.ingestion.stream_on_loop import StreamOnLoop
from qwen3vl.ingestion.sync import Sync
from qwen3vl.ingestion.types import LoaderItem, StreamingEmbedder
from qwen3vl.stores import AsyncStore, Store
from qwen3vl.stores.on_loop import StoreOnLoop


def ingest(
    documents: Iterable[LoaderItem],
    embedder: StreamingEmbedder,
    store: Store,
    *,
    sync: Sync = False,
    thumbnails: int = 0,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Embed and write the documents that a store does not have yet.

    A point's id is derived from the document and the recipe, so that a second run, or a run after a crash, continues
    where the last one stopped: at most `MAX_UNWRITTEN_POINTS` points, and what was in the forward pass, are
    embedded twice. Equal documents are stored once. Documents with equal content and different names are embedded
    once, as long as no more than 65,536 other contents lie between them. Metadata are not part of the id: if only
    they change, nothing is written.

    A document that fails is in the report, is not stored, and is attempted again by the next run. Ctrl-C writes what
    is embedded, and is then raised.

    Args:
        documents: What a `Loader` yields, or documents of your own.
        embedder: An `Embedder`, or another object with `recipe` and `stream`.
        store: The store; its collection is created if it does not exist.
        sync: Which points are deleted at the end if the stream did not contain them: True for all, `"sources"` for
            those of the stream's sources, or a function that returns true for a source. Points of a source that
            failed, of files below it, and of files that match it as a pattern, are kept. So are those of files whose
            nearest existing folder is empty, and an empty stream deletes nothing: a folder that is empty is more often
            one whose disk is not mounted. If the files were deleted, remove the folder, too.
        thumbnails: If not 0, a small JPEG of each image, page and video is stored under `thumbnail` in its metadata,
            as a data URI of at most so many characters. Media are otherwise stored as references only.
        progress: Called after each step with the report so far, in the calling thread.

    Returns:
        What was done.

    Raises:
        TypeError: The store is asynchronous.
        RecipeError: The collection has another recipe.
        IngestError: The store rejects all requests or cannot be reached. Shorter outages are retried, and points
            that could not be written are in the report.

    Example:
        ```python
        report = ingest(Loader().load(["photos"]), Embedder(), open_store("library.qdrant"), sync=True)
        ```
    """
    if not isinstance(store, Store):
        raise TypeError(f"ingest needs a Store, and {type(store).__name__} is none; use aingest for an AsyncStore")
    return IngestionPipeline(embedder, store, sync, thumbnails, progress).run(documents)


async def aingest(
    documents: Iterable[LoaderItem] | AsyncIterable[LoaderItem],
    embedder: StreamingEmbedder,
    store: AsyncStore,
    *,
    sync: Sync = False,
    thumbnails: int = 0,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Embed and write documents as `ingest` does, without blocking the event loop.

    When it is cancelled, it first writes what is embedded. When it returns or raises an exception, nothing waits for an
    item of an asynchronous iterable any more: such a wait was cancelled.

    Args:
        documents: As for `ingest`, or an asynchronous iterable.
        embedder: As for `ingest`.
        store: A store of either kind: `Store` or `AsyncStore`.
        sync: As for `ingest`.
        thumbnails: As for `ingest`.
        progress: As for `ingest`; called in the event loop.

    Returns:
        What was done.

    Raises:
        RecipeError: As for `ingest`.
        IngestError: As for `ingest`.
    """
    loop = asyncio.get_running_loop()
    blocking_store = store if isinstance(store, Store) else StoreOnLoop(store, loop)
    report_progress = None if progress is None else _call_in_loop(loop, progress)
    pipeline = IngestionPipeline(embedder, blocking_store, sync, thumbnails, report_progress)
    stream = documents if isinstance(documents, Iterable) else StreamOnLoop(documents, loop)
    finished, outcome = asyncio.Event(), _Outcome()

    def work() -> None:
        try:
            outcome.report = pipeline.run(stream)
        except BaseException as error:
            outcome.error = error
        loop.call_soon_threadsafe(finished.set)

    cancelled: asyncio.CancelledError | None = None
    # Not one of the loop's own threads: all of them may be needed by what the stream and the client await.
    threading.Thread(target=work, daemon=True).start()
    while True:
        try:
            await finished.wait()
            if isinstance(stream, StreamOnLoop):  # the caller may go on with it, or close it
                await stream.stop()
            break
        except asyncio.CancelledError as error:
            cancelled = error
            pipeline.stop()
            if isinstance(stream, StreamOnLoop):
                stream.cancel()
    if cancelled is not None:
        raise cancelled
    if outcome.error is not None:
        raise outcome.error
    return outcome.report


@dataclass(slots=True)
class _Outcome:
    report: Report = field(default_factory=Report)
    error: BaseException | None = None


def _call_in_loop(loop: asyncio.AbstractEventLoop, progress: Callable[[Report], None]) -> Callable[[Report], None]:
    def call(report: Report) -> None:
        loop.call_soon_threadsafe(progress, report)

    return call

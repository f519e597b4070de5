"""Ingests what clients have sent, in the background: one job after the other, in the order in which they came."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from qwen3vl.documents import Document
from qwen3vl.errors import Qwen3VLError, ServerError, StoreError
from qwen3vl.ingestion import LoaderItem, Report, aingest
from qwen3vl.stores import AsyncStore
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.jobs import Job, JobRecords, NewFile
from qwen3vl_server.library.loading import load_files
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.points import SourceCounts

if TYPE_CHECKING:  # it imports torch
    from qwen3vl.embedder import Embedder

log = logging.getLogger(__name__)

MAX_WAITING_JOBS = 1000
"""Jobs that may wait; more are refused with status 429."""
_READ_POINTS = 512
"""Points whose documents are read at a time."""
_MAX_FINISHED_JOBS = 1000
"""Finished jobs whose status can be asked for."""


class Ingestion:
    """Ingests files into a store.

    A source's new documents replace its former ones: those that the file does not have any more are deleted, unless a
    part of the file has failed. It belongs to one event loop.

    Args:
        embedder: Embeds the documents.
        store: Where they are written.
        folder: Where their files are.
        counts: Counts of the store, which are forgotten when a job has changed it.
    """

    def __init__(self, embedder: Embedder, store: AsyncStore, folder: MediaFolder, counts: SourceCounts) -> None:
        self.folder = folder
        self._embedder = embedder
        self._store = store
        self._counts = counts
        self._records = JobRecords(folder.jobs)
        self._jobs: dict[str, Job] = {}
        self._retained: dict[str, Job] = {}
        """What the next process repeats of jobs that have failed, by their ids: their records stay."""
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._deletions = Counter[str]()
        """How many deletions are at work on the documents of each source."""
        self._deletion_ended = asyncio.Condition()
        self._files_lock = asyncio.Lock()
        """Held from when files are written until their job is known, and while files that no job needs are deleted."""

    @property
    def jobs(self) -> list[Job]:
        """The jobs that are not finished, and the latest of the others, newest first."""
        return list(reversed(self._jobs.values()))

    def job(self, job_id: str) -> Job | None:
        """Return a job by its id; None if there is none, or it has finished long ago."""
        return self._jobs.get(job_id)

    def start(self) -> None:
        """Begin to work, first on what a former process has left."""
        for job in self._records.load():
            self._enqueue(job)
        self._worker = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Stop; what is embedded is written first, and the next process goes on with the rest."""
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker

    def require_room(self) -> None:
        """Check that another job may be submitted.

        Raises:
            RequestError: Too many are waiting: status 429.
        """
        if self._waiting.qsize() >= MAX_WAITING_JOBS:
            raise RequestError(429, f"{MAX_WAITING_JOBS} ingestions are waiting; try again later", code="overloaded")

    async def submit(self, write_files: Callable[[], Sequence[NewFile]]) -> Job:
        """Accept files. They are ingested even if the server is killed before.

        Args:
            write_files: Writes those that are not fetched into the media folder, and returns all. It runs in a thread.

        Returns:
            The job.
        """
        async with self._files_lock:
            job = Job(tuple(await asyncio.to_thread(write_files)))
            await asyncio.to_thread(self._records.add, job)
            self._enqueue(job)
            await self._forget_failed(job.sources)
        return job

    async def forget_failed(self, sources: Collection[str]) -> None:
        """Let no later process repeat what has failed of sources, because they were deleted.

        Args:
            sources: The sources.
        """
        if self._retained:  # else do not wait for files that are being written
            async with self._files_lock:
                await self._forget_failed(sources)

    def is_pending(self, source: str) -> bool:
        """Return whether documents of a source are about to be written.

        Args:
            source: The source.

        Returns:
            True while a job with it waits or runs.
        """
        return any(source in job.sources for job in self._pending_jobs())

    @asynccontextmanager
    async def deleting(self, sources: Collection[str]) -> AsyncIterator[None]:
        """Return a context in which documents of sources are deleted. Jobs that write such documents begin after it.

        A job that began before would take points for stored that are about to be deleted.

        Args:
            sources: The sources.

        Yields:
            Nothing.

        Raises:
            RequestError: A source is being ingested: status 409.
        """
        for source in sources:
            if self.is_pending(source):
                raise RequestError(409, f"{source!r} is being ingested; delete it when that has finished")
        self._deletions.update(sources)
        try:
            yield
        finally:
            self._deletions.subtract(sources)
            self._deletions = +self._deletions  # without those of which nothing is deleted any more
            async with self._deletion_ended:
                self._deletion_ended.notify_all()

    async def prune(self, source: str, finished: Job | None = None) -> None:
        """Delete the files of a source that none of its points shows, and that no job has to load.

        Args:
            source: The source.
            finished: A job that has loaded its files, although its status is not yet that of a finished one.
        """
        async with self._files_lock:
            references = await self._references_of(source)
            for job in (*self._pending_jobs(), *self._retained.values()):
                if job is not finished:
                    references += [str(self.folder.path / file.path) for file in job.files if file.source == source]
            await asyncio.to_thread(self.folder.prune, source, references)

    async def _ids_of(self, source: str) -> list[str]:
        return [point.id async for point in self._store.ascan({"source": source})]

    async def _references_of(self, source: str) -> list[str]:
        """Return what the points of a source show."""
        references, ids = [], await self._ids_of(source)
        for start in range(0, len(ids), _READ_POINTS):  # the vectors are read with them
            documents = await self._store.adocuments(ids[start : start + _READ_POINTS])
            references += [document.image or document.video or "" for document in documents.values()]
        return references

    def _pending_jobs(self) -> list[Job]:
        return [job for job in self._jobs.values() if job.status in ("waiting", "running")]

    def _enqueue(self, job: Job) -> None:
        self._jobs[job.id] = job
        finished = [other.id for other in self._jobs.values() if other.status in ("done", "failed")]
        for job_id in finished[:-_MAX_FINISHED_JOBS]:
            del self._jobs[job_id]
        self._waiting.put_nowait(job)

    async def _work(self) -> None:
        while True:
            job = await self._waiting.get()
            await self._wait_for_deletions(job.sources)
            job.status = "running"
            try:
                await self._run(job)
                job.status = "done"
            except Exception as error:
                job.error = str(error) if isinstance(error, Qwen3VLError) else "the server failed; its log says why"
                log.exception("ingestion %s failed", job.id)
                if isinstance(error, (StoreError, ServerError)):  # the next process tries again
                    await self._retain(job)
                    job.status = "failed"
                    continue
                job.status = "failed"
            await self._record(job, ())

    async def _retain(self, job: Job) -> None:
        """Keep the record of a job that has failed, without the sources that were sent again since."""
        async with self._files_lock:
            self._retained[job.id] = job
            newer = {source for other in self._pending_jobs() if other is not job for source in other.sources}
            await self._forget_failed(newer)

    async def _forget_failed(self, sources: Collection[str]) -> None:
        for job in list(self._retained.values()):
            if not job.sources.isdisjoint(sources):
                del self._retained[job.id]
                files = tuple(file for file in job.files if file.source not in sources)
                if files:
                    self._retained[job.id] = Job(files, job.id)
                await self._record(job, files)

    async def _record(self, job: Job, files: tuple[NewFile, ...]) -> None:
        """Write what the next process repeats of a job; if that is nothing, delete its record."""
        try:
            if files:
                await asyncio.to_thread(self._records.add, Job(files, job.id))
            else:
                await asyncio.to_thread(self._records.remove, job)
        except OSError:  # other jobs must not wait for it
            log.exception("the record of ingestion %s cannot be changed; the next process repeats all of it", job.id)

    async def _wait_for_deletions(self, sources: Collection[str]) -> None:
        async with self._deletion_ended:
            await self._deletion_ended.wait_for(lambda: self._deletions.keys().isdisjoint(sources))

    async def _run(self, job: Job) -> None:
        stored = {source: await self._ids_of(source) for source in job.sources}
        recipe, written = self._embedder.recipe, set[str]()

        def documents() -> Iterator[LoaderItem]:
            for item in load_files(job.files, self.folder, self._embedder.policy):
                if isinstance(item, Document):
                    written.add(self._store.point_id(item, recipe))
                yield item

        def progress(report: Report) -> None:
            job.added, job.unchanged, job.failed = report.added, report.unchanged, list(report.failed)

        try:
            progress(await aingest(documents(), self._embedder, self._store, progress=progress))
            for source, ids in stored.items():
                stale = [point_id for point_id in ids if point_id not in written]
                if stale and not any(_is_of(name, source) for name, _ in job.failed):
                    await self._store.adelete(stale)
                    job.replaced += len(stale)
                await self.prune(source, finished=job)
        finally:
            self._counts.forget()


def _is_of(name: str, source: str) -> bool:
    """Return whether the name of a document, or of a part of it, belongs to a source."""
    return name == source or name.startswith(f"{source}#")

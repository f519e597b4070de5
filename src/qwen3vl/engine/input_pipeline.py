"""From the submission of a request until it is ready to run: preparation and decoding, on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

from qwen3vl.concurrency.futures import call_when_done
from qwen3vl.concurrency.pull_thread_pool import Job, PullThreadPool
from qwen3vl.engine.calls import Call, QueuedRequest
from qwen3vl.engine.cancellation import Cancelled, cancellation_scope
from qwen3vl.engine.media_decoder import MediaDecoder
from qwen3vl.engine.preparation import PreparedRequest, RequestPreparer
from qwen3vl.engine.request_queue import RequestQueue
from qwen3vl.engine.requests import Request, UnparsedRequest, as_exception, failed_request
from qwen3vl.inputs import aparse
from qwen3vl.results import ItemOutput


class InputPipeline:
    """Prepares requests and decodes their media, when the queue has room for them. Thread-safe.

    Requests without media have threads of their own, and never wait for threads that read or decode media.

    Args:
        queue: Decides what is prepared and decoded next.
        preparer: Prepares requests.
        decoder: Decodes media.
        num_text_threads: Number of threads that prepare requests without media.
        num_media_threads: Number of threads that prepare requests with media, and decode these.
        on_ready: Called when a request is ready to run.
        on_error: Called when no thread can be started and none is running: they are closed, the interpreter is shutting
            down, or the system has too many threads.
    """

    def __init__(
        self,
        queue: RequestQueue,
        preparer: RequestPreparer,
        decoder: MediaDecoder,
        *,
        num_text_threads: int,
        num_media_threads: int,
        on_ready: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._queue = queue
        self._preparer = preparer
        self._decoder = decoder
        self._on_ready = on_ready
        self._on_error = on_error
        self._job_numbers = count()
        self._text_threads = PullThreadPool(num_text_threads, "qwen3vl-text", self._next_text_job)
        self._media_threads = PullThreadPool(num_media_threads, "qwen3vl-media", self._next_media_job)

    def submit_some(
        self, call: Call, source: Iterator[UnparsedRequest] | None, is_idle: Callable[[], bool]
    ) -> tuple[Iterator[UnparsedRequest] | None, int]:
        """Submit the next request of a call, and further ones as long as the caller is idle, if the queue has room.

        Args:
            call: The call.
            source: Its further requests; None if there are none.
            is_idle: Returns whether the caller has nothing else to do, such as to hand out outputs.

        Returns:
            The source, or None if it has ended, and the number of requests submitted.
        """
        num_submitted = 0
        while source is not None and self._queue.may_submit(call):
            unparsed = next(source, None)
            if unparsed is None:
                self._end_source(call)
                return None, num_submitted
            self._submit(call, unparsed.parse())
            num_submitted += 1
            if not is_idle():
                break
        return source, num_submitted

    async def asubmit_next(
        self, call: Call, source: Iterator[UnparsedRequest] | None
    ) -> tuple[Iterator[UnparsedRequest] | None, int]:
        """Submit the next request of a call, if the queue has room, without blocking the event loop.

        It is parsed before the next input is taken: iterables may yield one object again and again.

        Args:
            call: The call.
            source: Its further requests; None if there are none.

        Returns:
            The source, or None if it has ended, and the number of requests submitted.
        """
        if source is None or not self._queue.may_submit(call):
            return source, 0
        unparsed = next(source, None)
        if unparsed is None:
            self._end_source(call)
            return None, 0
        self._submit(call, await aparse(unparsed.parse, unparsed.value))
        return source, 1

    def _submit(self, call: Call, request: Request) -> None:
        self._queue.submit(call, request)
        self._wake(has_media=request.has_media)

    def _end_source(self, call: Call) -> None:
        self._queue.end_source(call)
        self._on_ready()  # a worker may be waiting for more

    def close(self) -> None:
        """Let the threads end after their present job. Does not wait for them."""
        self._text_threads.close()
        self._media_threads.close()

    def wake(self) -> None:
        """Note that there may be room for further requests."""
        for has_media in (False, True):
            self._wake(has_media=has_media, num_jobs=self._media_threads.max_threads)

    def _wake(self, *, has_media: bool, num_jobs: int = 1) -> None:
        try:
            (self._media_threads if has_media else self._text_threads).wake(num_jobs)
        except RuntimeError as error:
            self._on_error(error)

    def _next_text_job(self) -> Job | None:
        return self._next_preparation(has_media=False)

    def _next_media_job(self) -> Job | None:
        """Return the next decoding or preparation. They alternate, so that neither holds up the other."""
        decode_first = next(self._job_numbers) % 2 == 0
        for decode in (decode_first, not decode_first):
            job = self._next_decoding() if decode else self._next_preparation(has_media=True)
            if job is not None:
                return job
        return None

    def _next_preparation(self, *, has_media: bool) -> Job | None:
        if self._queue.drop_cancelled():
            self.wake()
        admission = self._queue.admit(has_media=has_media)
        if admission is None:
            return None
        next_has_media = admission.next_has_media
        if next_has_media is not None and next_has_media != has_media:
            self._wake(has_media=next_has_media)  # for them, the call had no request until now
        if admission.ask_for_more:
            admission.call.notify(())
        return partial(self._prepare, admission.call, admission.request)

    def _prepare(self, call: Call, request: Request) -> None:
        outcome: PreparedRequest | ItemOutput | None = None
        try:
            if not call.cancelled:
                with cancellation_scope(lambda: call.cancelled):
                    outcome = self._preparer.prepare(request)
        except Cancelled:
            pass
        except BaseException as error:  # such as SystemExit, of an object of the caller
            outcome = failed_request(request, as_exception(error))
        if not isinstance(outcome, PreparedRequest):
            self._queue.mark_unprepared(call)
            if outcome is not None:
                call.notify((outcome,))
            return
        self._queue.mark_prepared(call, outcome)
        if outcome.fitted.media:
            self._wake(has_media=True)
        else:
            self._on_ready()

    def _next_decoding(self) -> Job | None:
        """Return the next decoding. If none is left of the requests that were started, start another request."""
        while (job := self._decoder.next_job()) is None:
            queued = self._queue.next_to_decode()
            if queued is None:
                return None
            self._decoder.start(queued)
            self._wake(has_media=True, num_jobs=len(queued.pixels) - 1)
            self._finish_when_decoded(queued)
        return job

    def _finish_when_decoded(self, queued: QueuedRequest) -> None:
        call_when_done(queued.pixels.values(), partial(self._finish_decoding, queued))

    def _finish_decoding(self, queued: QueuedRequest) -> None:
        """Make a request ready whose media are decoded, or fail it if one of them is broken."""
        num_again = 0 if queued.call.cancelled else self._decoder.retry(queued)
        if num_again:
            self._finish_when_decoded(queued)
            self._wake(has_media=True, num_jobs=num_again)
            return
        for media in queued.prepared.fitted.media:
            future = queued.pixels.get(media.vision.key)
            error = None if future is None else future.exception()
            if error is not None:
                self._queue.mark_undecodable(queued)
                queued.call.notify((failed_request(queued.prepared.request, as_exception(error), media.name),))
                self._wake(has_media=True)
                return
        self._queue.mark_decoded(queued)
        self._on_ready()

"""The way of a request from its submission until it is ready to run: preparation and decoding, on threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from qwen3vl.concurrency.futures import call_when_done
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.engine.calls import AdmittedRequest, Call, QueuedRequest
from qwen3vl.engine.media_decoder import MediaDecoder
from qwen3vl.engine.preparation import PreparedRequest, RequestPreparer
from qwen3vl.engine.request_queue import RequestQueue
from qwen3vl.engine.requests import Request, RequestOutput, as_exception, failed_output


class InputPipeline:
    """Prepares requests and has their media decoded, when the queue has room for them. Thread-safe.

    Args:
        queue: Decides what is prepared and decoded next.
        preparer: Prepares requests.
        decoder: Decodes media.
        text_threads: Threads that prepare requests without media; these never wait for those that read media.
        media_threads: Threads that prepare requests with media.
        on_ready: Called when a request is ready to run.
        on_error: Called when no request can be prepared any more: the threads are closed, or the interpreter is
            shutting down.
    """

    def __init__(
        self,
        queue: RequestQueue,
        preparer: RequestPreparer,
        decoder: MediaDecoder,
        *,
        text_threads: ForkSafeThreadPool,
        media_threads: ForkSafeThreadPool,
        on_ready: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._queue = queue
        self._preparer = preparer
        self._decoder = decoder
        self._text_threads = text_threads
        self._media_threads = media_threads
        self._on_ready = on_ready
        self._on_error = on_error

    def submit_some(
        self, call: Call, source: Iterator[Request] | None, no_event: Callable[[], bool]
    ) -> tuple[Iterator[Request] | None, int]:
        """Submit requests of a call, as long as the queue accepts them and the caller has nothing else to do.

        Args:
            call: The call.
            source: Its further requests; None if there are none.
            no_event: Returns whether the caller has nothing to do.

        Returns:
            The source, or None if it has ended, and the number of requests submitted.
        """
        num_submitted = 0
        while source is not None and self._queue.accepts(call):
            request = next(source, None)
            if request is None:
                return None, num_submitted
            self._queue.submit(call, request)
            self.advance()
            num_submitted += 1
            if not no_event():
                break
        return source, num_submitted

    def advance(self) -> None:
        """Start the next steps of all requests for which there is room."""
        try:
            while steps := self._queue.next_steps():
                for admitted in steps.prepare:
                    threads = self._media_threads if admitted.request.has_media else self._text_threads
                    threads.submit(self._prepare, admitted)
                for queued in steps.decode:
                    self._start_decoding(queued)
                for call in steps.ask:
                    call.notify(())
        except Exception as error:  # nearly always that no thread can be started any more
            self._on_error(error)

    def _prepare(self, admitted: AdmittedRequest) -> None:
        outcome: PreparedRequest | RequestOutput | None = None
        try:
            if not admitted.call.cancelled:
                outcome = self._preparer.prepare(admitted.request)
        except BaseException as error:  # such as SystemExit, of an object of the caller
            outcome = failed_output(admitted.request, as_exception(error))
        if isinstance(outcome, PreparedRequest):
            self._queue.prepared(admitted, outcome)
            if not outcome.fitted.media:
                self._on_ready()
        else:
            self._queue.preparation_failed(admitted)
            if outcome is not None:
                admitted.call.notify((outcome,))
        self.advance()

    def _start_decoding(self, queued: QueuedRequest) -> None:
        self._decoder.start(queued)
        if all(future.done() for future in queued.pixels.values()):
            self._finish_decoding(queued)
        else:
            call_when_done(queued.pixels.values(), partial(self._finish_decoding_later, queued))

    def _finish_decoding(self, queued: QueuedRequest) -> None:
        """Make a request ready whose media are decoded, or fail it if one of them is broken."""
        for media in queued.prepared.fitted.media:
            future = queued.pixels.get(media.vision.key)
            if future is None:
                continue
            error = RuntimeError("decoding was cancelled") if future.cancelled() else future.exception()
            if error is not None:
                self._queue.decoding_failed(queued)
                queued.call.notify((failed_output(queued.prepared.request, as_exception(error), media.name),))
                return
        self._queue.decoded(queued)
        self._on_ready()

    def _finish_decoding_later(self, queued: QueuedRequest) -> None:
        self._finish_decoding(queued)
        self.advance()

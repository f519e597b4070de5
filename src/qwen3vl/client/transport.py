"""Sends requests to servers: shared connections, repetitions, failing over, and errors that say what to do."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import httpx

from qwen3vl.client.servers import Server, ServerPool
from qwen3vl.concurrency.background_loop import BACKGROUND_LOOP
from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.errors import CLOSED, ServerError
from qwen3vl.settings import API_KEY_VARIABLE, ClientSettings

P = ParamSpec("P")
T = TypeVar("T")

MAX_REQUESTS = 64
"""Maximum number of requests, and thus of connections, of an object at once; others wait."""
CONNECT_TIMEOUT_S = 5.0
DESCRIBE_TIMEOUT_S = 30.0
"""Seconds within which a server has to describe its models."""
KEEPALIVE_S = 4.0
"""Seconds for which an unused connection is kept. uvicorn closes it after 5."""
BUSY_PAUSE_S = 1.0
"""Seconds before a server that is busy is asked again, if it does not say how many."""
_BUSY = 429
_UNAVAILABLE = (502, 503, 504)


class _UnavailableError(Exception):
    """A request may succeed if it is repeated."""


class _BusyError(_UnavailableError):
    """The server has too much to do."""


@dataclass(slots=True, eq=False)
class _Connections:
    """The state of one process."""

    http: httpx.AsyncClient
    servers: ServerPool
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_REQUESTS))
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)


class Transport:
    """Sends requests. Any number of threads and event loops may use one object at once.

    All of it runs in the process's background loop. Work is given to it by `submit`; the coroutines are for that work.

    Args:
        urls: Addresses of servers of the same model.
        settings: Key, time limit and number of repetitions.

    Attributes:
        urls: As above.
        closed: Whether `close` was called.
        answer_timeout_s: Seconds after which a server that does not answer is taken for dead.
    """

    def __init__(self, urls: Sequence[str], settings: ClientSettings) -> None:
        self.urls = tuple(urls)
        self.closed = False
        self.answer_timeout_s = DESCRIBE_TIMEOUT_S
        self._settings = settings
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Forget the connections of the process that forked."""
        self._connections: _Connections | None = None

    def submit(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call an asynchronous function in the background loop.

        Args:
            work: The function.
            *args: Its positional arguments.
            **kwargs: Its keyword arguments.

        Returns:
            The future of its result, for `result_of`. Cancelling it cancels the function's requests.

        Raises:
            RuntimeError: This object is closed.
        """
        if self.closed:
            raise RuntimeError(CLOSED)
        return BACKGROUND_LOOP.submit(self._run(work, *args, **kwargs))

    def result_of(self, future: Future[T]) -> T:
        """Wait for the result of a future of `submit`.

        Args:
            future: The future.

        Returns:
            Its result.

        Raises:
            RuntimeError: This object was closed meanwhile.
        """
        try:
            return future.result()
        except CancelledError as error:
            if self.closed:
                raise RuntimeError(CLOSED) from error
            raise

    async def aresult_of(self, future: asyncio.Future[T]) -> T:
        """Wait for the result of a wrapped future of `submit`, from another event loop.

        Args:
            future: What `asyncio.wrap_future` has made of it.

        Returns:
            Its result.

        Raises:
            RuntimeError: This object was closed meanwhile.
        """
        try:
            return await future
        except asyncio.CancelledError as error:
            if self.closed:
                raise RuntimeError(CLOSED) from error
            raise

    def close(self) -> None:
        """Cancel all work and close the connections. Closing again does nothing."""
        if not self.closed:
            self.closed = True
            BACKGROUND_LOOP.submit(self._close()).result()

    async def _run(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (for mypy: a coroutine runs in a task)
        tasks = self._connect().tasks
        tasks.add(task)
        try:
            return await work(*args, **kwargs)
        except asyncio.CancelledError:
            if self.closed:
                raise RuntimeError(CLOSED) from None
            raise
        finally:
            tasks.discard(task)

    async def _close(self) -> None:
        if self._connections is not None:
            for task in self._connections.tasks:
                task.cancel()
            await self._connections.http.aclose()

    def _connect(self) -> _Connections:
        if self._connections is None:
            headers = {"Authorization": f"Bearer {self._settings.api_key}"} if self._settings.api_key else {}
            limits = httpx.Limits(max_keepalive_connections=MAX_REQUESTS, keepalive_expiry=KEEPALIVE_S)
            http = httpx.AsyncClient(headers=headers, limits=limits)
            self._connections = _Connections(http, ServerPool(self.urls))
            weakref.finalize(self, _close_later, http).atexit = False
        return self._connections

    async def describe_servers(self, path: str) -> dict[str, Any]:
        """Ask all servers for the same.

        Args:
            path: A path that is read.

        Returns:
            The answers by URL, of the servers that can be reached; at least one.

        Raises:
            ServerError: A server refuses the request, none can be reached, or the time is up.
        """
        pool, num_failures = self._connect().servers, 0
        last: BaseException | None = None
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                while True:
                    attempts = (self._attempt(server, "GET", path) for server in pool.servers)
                    answers = await asyncio.gather(*attempts, return_exceptions=True)
                    described = {}
                    for server, answer in zip(pool.servers, answers, strict=True):
                        if not isinstance(answer, BaseException):
                            described[server.url] = answer
                        elif not isinstance(answer, _UnavailableError):
                            raise answer
                    if described:
                        return described
                    last = answers[0]
                    num_failures += len(answers)
                    if num_failures == self._max_failures:
                        raise self._unavailable(last, num_failures)
                    await pool.choose()
        except TimeoutError as error:
            raise self._too_late(last) from error

    async def request(self, path: str, content: bytes, content_type: str) -> Any:
        """Send a request to one of the servers.

        Args:
            path: The path.
            content: The body.
            content_type: Its type.

        Returns:
            The object in its answer.

        Raises:
            ServerError: The server refuses the request, none can be reached, or the time is up.
        """
        connections, num_failures = self._connect(), 0
        last: BaseException | None = None
        try:
            async with asyncio.timeout(self._settings.timeout_s), connections.slots:
                while True:
                    server = await connections.servers.choose()
                    try:
                        return await self._attempt(server, "POST", path, content, content_type)
                    except _UnavailableError as error:
                        last = error
                        num_failures += not isinstance(error, _BusyError)
                        if num_failures == self._max_failures:
                            raise self._unavailable(error, num_failures) from error
        except TimeoutError as error:
            raise self._too_late(last) from error

    async def _attempt(
        self, server: Server, method: str, path: str, content: bytes | None = None, content_type: str | None = None
    ) -> Any:
        """Send a request once; return the object in the answer."""
        headers = {"Content-Type": content_type} if content_type else {}
        timeout = httpx.Timeout(self.answer_timeout_s, connect=CONNECT_TIMEOUT_S, pool=None)
        server.num_requests += 1
        try:
            response = await self._connect().http.request(
                method, server.url + path, content=content, headers=headers, timeout=timeout
            )
        except (httpx.TransportError, OSError) as error:
            server.fail()
            raise _UnavailableError(f"{server.url} cannot be reached: {str(error) or type(error).__name__}") from error
        finally:
            server.num_requests -= 1
        return _read_answer(server, response)

    @property
    def _max_failures(self) -> int:
        return len(self.urls) * (self._settings.max_retries + 1)

    def _too_late(self, last: BaseException | None) -> ServerError:
        reason = f"; the last attempt failed: {last}" if last else ""
        return ServerError(
            f"{', '.join(self.urls)}: no answer within {self._settings.timeout_s:g} s (timeout_s){reason}"
        )

    def _unavailable(self, error: BaseException, num_attempts: int) -> ServerError:
        others = f", nor can the others of {', '.join(self.urls)}" if len(self.urls) > 1 else ""
        return ServerError(f"{error}{others} ({num_attempts} attempts). Check the address, and that the server runs")


def _read_answer(server: Server, response: httpx.Response) -> Any:
    """Return the object in an answer of a server; raise an error for every other answer."""
    status = response.status_code
    try:
        answer = response.json()
    except ValueError:  # of a proxy, or of another program
        answer = None
    details = answer.get("error") if isinstance(answer, dict) else None
    details = details if isinstance(details, dict) else {}
    reason = f"status {status}" + (f": {details['message']}" if details.get("message") else "")
    if status == _BUSY:
        server.pause(_retry_after(response) or BUSY_PAUSE_S)
        raise _BusyError(f"{server.url} is busy: {reason}")
    if status in _UNAVAILABLE:
        server.fail(_retry_after(response))
        raise _UnavailableError(f"{server.url} cannot answer: {reason}")
    server.succeed()
    if status in (401, 403):
        raise ServerError(
            f"{server.url} refuses the API key, or wants one; pass api_key, or set {API_KEY_VARIABLE} ({reason})",
            status=status,
        )
    if status == 200 and isinstance(answer, dict):
        return answer
    if not details:
        raise ServerError(
            f"{server.url} is no server of qwen3vl: {response.request.method} {response.request.url.path} is answered "
            f"with {reason}. Give the address that `qwen3vl serve` prints, without /v1",
            status=status,
        )
    raise ServerError(f"{server.url} answers {response.request.url.path} with {reason}", status=status, details=details)


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds in the header `Retry-After`; None if it has a date, or is missing."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def _close_later(http: httpx.AsyncClient) -> None:
    """Close the connections of an object that was dropped without `close`. It may be called on any thread."""
    BACKGROUND_LOOP.submit(http.aclose())

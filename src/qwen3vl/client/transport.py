"""Sends requests to servers: shared connections, repetitions, failing over, and errors that say what to do."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from qwen3vl.client.background import BackgroundCalls
from qwen3vl.client.servers import Server, ServerPool
from qwen3vl.concurrency.background_loop import BACKGROUND_LOOP
from qwen3vl.errors import ServerError
from qwen3vl.settings import API_KEY_VARIABLE, ClientSettings
from qwen3vl.wire import TIMED_OUT

MAX_REQUESTS = 64
"""Maximum number of requests, and thus of connections, of an object at once; others wait."""
CONNECT_TIMEOUT_S = 5.0
DESCRIBE_TIMEOUT_S = 30.0
"""Seconds within which a server has to describe its models."""
KEEPALIVE_S = 4.0
"""Seconds for which an unused connection is kept. uvicorn closes it after 5."""
MAX_RETRY_AFTER_S = 60.0
"""Maximum pause that a server can ask for in seconds: the page of a proxy may ask for hours."""
BUSY_PAUSE_S = 1.0
"""Seconds before a server that is busy is asked again, if it does not say how many."""
TOO_LARGE = 413
"""Status of an answer to a request whose body is too large, for the server or for a proxy before it."""
_BUSY = 429
_UNAVAILABLE = (502, 503, 504)
_FAILED = 500
"""What a proxy, such as that of Ray Serve, answers if the server behind it dies. Failures of a server have details."""


@dataclass(frozen=True, slots=True)
class Program:
    """What runs on the other side.

    Attributes:
        name: What it is.
        command: Starts it.
    """

    name: str
    command: str


QWEN3VL_SERVER = Program("server of qwen3vl", "qwen3vl serve")


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


class Transport(BackgroundCalls):
    """Sends requests. The coroutines are for work that is given to `submit`.

    Args:
        urls: Addresses of servers of the same model.
        settings: Key, time limit and number of repetitions.
        program: What the servers are, and where to read their address, for the message about a server that is none.

    Attributes:
        urls: As above.
        answer_timeout_s: Seconds after which a server that does not answer is taken for dead.
    """

    def __init__(self, urls: Sequence[str], settings: ClientSettings, program: Program = QWEN3VL_SERVER) -> None:
        self.urls = tuple(urls)
        self.answer_timeout_s = DESCRIBE_TIMEOUT_S
        self._settings = settings
        self._program = program
        super().__init__()

    def init_process_state(self) -> None:
        """Forget the calls and connections of the process that forked."""
        super().init_process_state()
        self._connections: _Connections | None = None

    async def release(self) -> None:
        """Close the connections."""
        if self._connections is not None:
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
            # Waiting for the object's other requests is no time of this one.
            async with connections.slots, asyncio.timeout(self._settings.timeout_s):
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
        except (httpx.RequestError, OSError) as error:  # a body that cannot be decoded is a RequestError, too
            server.fail()
            raise _UnavailableError(f"{server.url} cannot be reached: {str(error) or type(error).__name__}") from error
        finally:
            server.num_requests -= 1
        return _read_answer(server, response, self._program)

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


def _read_answer(server: Server, response: httpx.Response, program: Program) -> Any:
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
        server.refuse(_retry_after(response) or BUSY_PAUSE_S)
        raise _BusyError(f"{server.url} is busy: {reason}")
    timed_out = details.get("code") == TIMED_OUT  # the same request would be too slow again
    if (status in _UNAVAILABLE and not timed_out) or (status == _FAILED and not details):
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
        raise ServerError(_foreign_answer(server, response, reason, program), status=status)
    raise ServerError(f"{server.url} answers {response.request.url.path} with {reason}", status=status, details=details)


def _foreign_answer(server: Server, response: httpx.Response, reason: str, program: Program) -> str:
    """Return what an answer means that is not the server's own: a proxy has given it, or another program."""
    request, redirected = response.request, response.next_request
    asked = f"{request.method} {request.url.path}"
    if response.status_code == TOO_LARGE:
        return (
            f"{server.url} refuses {asked} with {len(request.content)} bytes ({reason}): a proxy before the server "
            "accepts smaller bodies only; raise its limit (client_max_body_size of nginx)"
        )
    if redirected is not None:
        # The path of the server's interface is at the end of both.
        address = str(redirected.url).removesuffix(str(request.url).removeprefix(server.url))
        return f"{server.url} redirects {asked} ({reason}); give the address that it redirects to: {address[:200]}"
    return (
        f"{server.url} is no {program.name}: {asked} is answered with {reason}. Give the address that "
        f"`{program.command}` prints, without /v1"
    )


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that the header `Retry-After` asks for, at most `MAX_RETRY_AFTER_S`; None if it does not."""
    value = response.headers.get("retry-after", "")
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_S) or None
    try:  # or a date, https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
        seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(seconds, MAX_RETRY_AFTER_S) if seconds > 0 else None


def _close_later(http: httpx.AsyncClient) -> None:
    """Close the connections of an object that was dropped without `close`. It may be called on any thread."""
    BACKGROUND_LOOP.submit(http.aclose())

"""A decoder process, seen from the process that uses it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.isolation.messages import Channel
from qwen3vl.media.isolation.shared_buffer import SharedBuffer

START_TIMEOUT_S = 60.0
"""Seconds within which a process must have started."""
_POLL_S = 0.25
"""Seconds between checks whether this program is ending."""
_EXIT_TIMEOUT_S = 5.0
"""Seconds to wait for a process that was killed, or that has closed its connection."""
_MAX_IDLE_BUFFER_BYTES = 64 * 2**20
"""A process whose buffer is larger than this is not kept for further items."""
_BOOTSTRAP = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from qwen3vl.media.isolation.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(64 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
}
"""Each process decodes one item, so libraries need no threads of their own. An arena of glibc's `malloc` reserves
64 MiB of address space, which would count as the item's memory. The thresholds, in bytes, keep freed memory for the
next item: giving it back to the system and taking it again costs a third of the time of a page (mallopt(3))."""


class ProcessEndedError(Exception):
    """The process had ended before it got the request; another one can be tried."""


class DecoderProcess:
    """A process that decodes one item at a time.

    Raises:
        MediaError: It cannot be started.
    """

    def __init__(self) -> None:
        if not sys.executable:
            raise MediaError(
                "no decoder process can be started, since sys.executable is empty; set it to a Python interpreter, or "
                "pass MediaPolicy(isolated=False) if all media can be trusted"
            )
        ours, theirs = socket.socketpair()
        buffer = SharedBuffer()
        descriptors = (theirs.fileno(), buffer.file_descriptor)
        command = [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), *map(str, descriptors)]
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT,
                pass_fds=descriptors,
            )
        self._channel = Channel(Connection(ours.detach()), buffer)
        self._busy = self._ended = False
        try:
            self._receive(START_TIMEOUT_S)
        except (EOFError, OSError, TimeoutError) as error:
            self.kill()
            raise MediaError(
                f"a decoder process ended while it started ({describe_exit(self._process.returncode)}); run "
                f"`{sys.executable} -c 'import qwen3vl.media.isolation.worker'` to see why"
            ) from error

    @property
    def usable(self) -> bool:
        """Whether the process can take another item."""
        return not (self._busy or self._ended) and self._process.poll() is None

    def stream(
        self, operation: str, arguments: tuple[Any, ...], *, seconds: float, memory: int, seconds_per_value: bool
    ) -> Iterator[Any]:
        """Run an operation that returns one value or an iterator of values.

        Args:
            operation: Module and function, as `module:function`.
            arguments: JSON values, arrays, bytes and paths.
            seconds: Maximum time that this waits for the process.
            memory: Bytes by which the process may grow.
            seconds_per_value: Whether the time begins anew with each value.

        Yields:
            The values.

        Raises:
            MediaError: The operation failed, or the process crashed.
            PolicyError: It took too long or too much memory.
            ProcessEndedError: The process had ended before.
        """
        request = {"operation": operation, "arguments": arguments, "seconds": seconds, "memory": memory}
        self._busy = True
        try:
            self._channel.send(request)
        except OSError as error:
            raise ProcessEndedError from error
        remaining = seconds
        while True:
            began = time.monotonic()
            try:
                reply = self._receive(remaining)
            except TimeoutError:
                self.kill()
                raise _took_too_long(seconds) from None
            except (EOFError, OSError, ValueError) as error:
                self.kill()
                raise self._crashed(seconds, memory) from error
            if not seconds_per_value:
                remaining -= time.monotonic() - began
            done = reply["done"]
            if done:
                self._busy = reply["retire"] or self._channel.buffer.size > _MAX_IDLE_BUFFER_BYTES
            if "error" in reply:
                raise _to_exception(reply, memory)
            if not done:  # the value is copied; the process works on the next one while the caller uses it
                self._channel.send({"next": True})
            if "value" in reply:
                yield reply.pop("value")  # not kept while the next one arrives
            if done:
                return

    def kill(self) -> None:
        """End the process and release its buffer. Doing it again does nothing."""
        if self._ended:
            return
        self._ended = True
        self._process.kill()
        self._process.wait(_EXIT_TIMEOUT_S)
        self._channel.close()

    def _receive(self, seconds: float) -> Any:
        """Wait for a message.

        Raises:
            TimeoutError: There was none in time.
            EOFError: The process has ended.
            OSError: As above.
            ValueError: This is no message.
        """
        end = time.monotonic() + seconds
        while not self._channel.connection.poll(max(0.0, min(_POLL_S, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise TimeoutError
            if not threading.main_thread().is_alive():  # the program ends, and waits for its threads
                self.kill()
                raise EOFError
        return self._channel.receive()

    def _crashed(self, seconds: float, memory: int) -> MediaError:
        return_code = self._process.returncode
        if return_code == -signal.SIGALRM:
            return _took_too_long(seconds)
        return MediaError(
            f"its decoder crashed ({describe_exit(return_code)}): the file is broken, or needs more memory than the "
            f"{memory / 2**20:.0f} MiB that the media policy allows (MediaPolicy.memory); export it again"
        )


def _took_too_long(seconds: float) -> PolicyError:
    return PolicyError(
        f"it took more than the {seconds:g} seconds that the media policy allows to read it (MediaPolicy.seconds); "
        "pass a simpler file"
    )


def _to_exception(reply: dict[str, Any], memory: int) -> MediaError:
    reason = str(reply.get("reason", ""))
    match reply["error"]:
        case "MemoryError":
            return PolicyError(
                f"it needs more memory than the {memory / 2**20:.0f} MiB that the media policy allows to read it "
                "(MediaPolicy.memory); pass a smaller file"
            )
        case "PolicyError":
            return PolicyError(reason)
        case "MediaError":
            return MediaError(reason)
        case name:
            return MediaError(f"it is broken: {name}: {reason}; export it again")


def describe_exit(return_code: int | None) -> str:
    """Describe how a process ended, such as `SIGSEGV` or `exit code 1`.

    Args:
        return_code: `Popen.returncode`.
    """
    if return_code is None or return_code >= 0:
        return f"exit code {return_code}"
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"

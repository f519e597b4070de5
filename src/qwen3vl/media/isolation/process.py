"""A decoder process, seen from the process that uses it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.media.isolation.messages import Channel
from qwen3vl.media.isolation.shared_buffer import SharedBuffer
from qwen3vl.media.isolation.worker import RETIREMENT_BYTES

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
"""Seconds within which a process must have started."""
_POLL_S = 0.25
"""Seconds between checks whether this program is ending."""
_EXIT_TIMEOUT_S = 5.0
"""Seconds to wait for a process that was killed, or that has closed its connection."""
_TRANSFER_TIMEOUT_S = 10
"""Seconds within which a message that has begun to arrive must be complete, or one must be taken by the process."""
_MAX_IDLE_BUFFER_BYTES = 64 * 2**20
"""A process whose buffer is larger than this is not kept for further items."""
_BOOTSTRAP = """\
import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); signal.signal(signal.SIGTERM, signal.SIG_IGN)
import json, sys; sys.path[:] = json.loads(sys.argv[1])
from qwen3vl.media.isolation.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))
"""
"""Ctrl-C, and a service manager that stops a service, signal the whole group. The process that decodes for this one has
to finish what this one still wants; it ends with the connection."""
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
        try:
            self._process, self._channel = _start_process()
        except OSError as error:
            raise MediaError(
                f"no decoder process can be started ({error}); raise the limit of processes, open files or memory, or "
                "use fewer threads"
            ) from error
        self._busy = self._ended = False
        try:
            self._receive(START_TIMEOUT_S, max_bytes=0)
        except (EOFError, OSError, TimeoutError, ValueError) as error:
            self._wait_or_kill()
            raise MediaError(
                f"a decoder process ended while it started ({describe_exit(self._process.returncode)}); run "
                f"`{sys.executable} -c 'import qwen3vl.media.isolation.worker'` to see why"
            ) from error
        except BaseException:  # such as Ctrl-C
            self.kill()
            raise

    @property
    def usable(self) -> bool:
        """Whether the process can take another item."""
        return not (self._busy or self._ended) and self._process.poll() is None

    def stream(
        self, operation: str, arguments: tuple[Any, ...], *, seconds: float, memory: int, limit_each_value: bool
    ) -> Iterator[Any]:
        """Run an operation that returns one value or an iterator of values.

        Args:
            operation: Module and function, as `module:function`.
            arguments: JSON values, arrays, bytes and paths.
            seconds: Maximum time to wait for the process. The time that the caller takes for a value does not count.
            memory: Bytes by which the process may grow.
            limit_each_value: Whether `seconds` limits the time of each value, rather than of all together.

        Yields:
            The values.

        Raises:
            MediaError: The operation failed, or the process crashed.
            PolicyError: It took too long or too much memory.
            ProcessEndedError: The process had ended before.
        """
        self._busy = True
        request = {"operation": operation, "arguments": arguments, "seconds": seconds, "memory": memory}
        try:
            self._channel.send(request)
        except ConnectionError as error:
            raise ProcessEndedError from error
        except OSError as error:
            raise MediaError(
                f"it cannot be sent to a decoder process ({error}); free memory, or pass it as a file"
            ) from error
        remaining = seconds
        while True:
            began = time.monotonic()
            reply = self._next_reply(remaining, seconds, memory)
            if not limit_each_value:
                remaining -= time.monotonic() - began
            if "error" in reply:
                raise _to_exception(reply, memory)
            if "value" in reply:
                yield reply.pop("value")  # not kept while the next one arrives
            if reply["done"]:
                return

    def _next_reply(self, remaining: float, seconds: float, memory: int) -> dict[str, Any]:
        """Receive a reply, and ask for the next one, if any: it is decoded while the caller uses this one.

        Args:
            remaining: Seconds to wait.
            seconds: Limit of time, for the error.
            memory: Limit of memory, in bytes.

        Returns:
            The reply.

        Raises:
            MediaError: The process crashed, or sent something else.
            PolicyError: It took too long.
        """
        try:
            reply = self._receive(remaining, max_bytes=memory + RETIREMENT_BYTES)
            if not isinstance(reply, dict) or not isinstance(reply.get("done"), bool):
                raise ValueError("it is no reply")
            if not reply["done"]:
                self._channel.send({"next": True})
            else:
                self._busy = bool(reply.get("retire", True)) or self._channel.buffer.size > _MAX_IDLE_BUFFER_BYTES
            return reply
        except TimeoutError:
            self.kill()
            raise _took_too_long(seconds) from None
        except (EOFError, ConnectionError) as error:
            self._wait_or_kill()
            return_code = self._process.returncode
            if return_code == -signal.SIGALRM:
                raise _took_too_long(seconds) from error
            raise MediaError(
                f"its decoder crashed ({describe_exit(return_code)}): the file is broken, or needs more memory than "
                f"the {memory / 2**20:.0f} MiB that the media policy allows (MediaPolicy.memory); export it again"
            ) from error
        except (OSError, ValueError) as error:
            self.kill()
            raise MediaError(
                f"its decoder sent something that is no reply ({error}): the file is broken; export it again"
            ) from error

    def kill(self) -> None:
        """End the process and release its buffer. Doing it again does nothing."""
        if self._ended:
            return
        self._process.kill()
        try:
            self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:  # the kernel waits for a disk or a network drive
            log.warning("decoder process %d was killed, but has not ended yet", self._process.pid)
        self.disown()

    def disown(self) -> None:
        """Release the connection and the buffer, but do not end the process: it belongs to the parent of this one."""
        if not self._ended:
            self._ended = True
            self._channel.close()

    def _wait_or_kill(self) -> None:
        """End a process that has closed its connection; if it ends by itself, keep its own exit status."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        self.kill()

    def _receive(self, seconds: float, max_bytes: int) -> Any:
        """Wait for a message.

        Args:
            seconds: Maximum time.
            max_bytes: Maximum size of the message's arrays and bytes.

        Returns:
            The message.

        Raises:
            TimeoutError: There was none in time.
            EOFError: The process has ended.
            OSError: As above, or the message is not complete.
            ValueError: This is no message.
        """
        end = time.monotonic() + seconds
        while not self._channel.connection.poll(max(0.0, min(_POLL_S, end - time.monotonic()))):
            if time.monotonic() >= end:
                raise TimeoutError
            if not threading.main_thread().is_alive():  # the program ends, and waits for its threads
                self.kill()
                raise EOFError
        return self._channel.receive(max_bytes)


def _start_process() -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a decoder process.

    Returns:
        The process, and this end of the connection to it.

    Raises:
        OSError: There are too many processes or open files, or there is not enough memory.
    """
    ours, theirs = socket.socketpair()
    timeout = struct.pack("ll", _TRANSFER_TIMEOUT_S, 0)  # struct timeval; see socket(7)
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        ours.setsockopt(socket.SOL_SOCKET, option, timeout)
    with ours, theirs:
        buffer = SharedBuffer()
        try:
            descriptors = [_duplicate_above_streams(number) for number in (theirs.fileno(), buffer.file_descriptor)]
            try:
                # -P: without it, the first imports would run files such as json.py of the current folder.
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-P", "-c", _BOOTSTRAP, json.dumps([*map(str, sys.path)]), *map(str, descriptors)],
                    stdin=subprocess.DEVNULL,
                    env=os.environ | _ENVIRONMENT,
                    pass_fds=descriptors,
                )
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
        except BaseException:
            buffer.close()
            raise
        return process, Channel(Connection(ours.detach()), buffer)


def _duplicate_above_streams(file_descriptor: int) -> int:
    """Duplicate a file descriptor as one above 2: the process redirects 0, 1 and 2, which a daemon may have closed."""
    return fcntl.fcntl(file_descriptor, fcntl.F_DUPFD_CLOEXEC, 3)


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
    """Describe how a process ended.

    Args:
        return_code: `Popen.returncode`.

    Returns:
        Such as `SIGSEGV` or `exit code 1`.
    """
    if return_code is None or return_code >= 0:
        return f"exit code {return_code}"
    try:
        return signal.Signals(-return_code).name
    except ValueError:
        return f"signal {-return_code}"

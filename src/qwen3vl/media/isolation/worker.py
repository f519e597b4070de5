"""The main loop of a decoder process.

It stays small and without torch: a process is started for each core, and again after each file that had to be stopped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from qwen3vl.errors import InputError, PolicyError
from qwen3vl.media.isolation import limits
from qwen3vl.media.isolation.messages import Channel
from qwen3vl.media.isolation.shared_buffer import SharedBuffer

ORPHAN_GRACE_S = 2.0
"""Seconds beyond the time limit after which a process ends itself, in case the process that should kill it is gone."""
RETIREMENT_BYTES = 256 * 2**20
"""A process whose address space has grown by more than this since it started is replaced by a new one."""
MAX_REASON_LENGTH = 2000
"""Maximum number of characters of a decoder's error message, since some messages quote the file."""
_END = object()


def main(socket_descriptor: int, buffer_descriptor: int) -> None:
    """Answer requests until the other process closes the connection.

    Args:
        socket_descriptor: A connected socket.
        buffer_descriptor: The file of the shared buffer.
    """
    limits.forbid_core_dumps()
    channel = Channel(Connection(socket_descriptor), SharedBuffer(buffer_descriptor))
    channel.send({"ready": True})
    # From here on, what decoders and the C library print about broken files would only disturb the user's terminal.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    size_at_start = limits.address_space()
    while True:
        try:
            request = channel.receive()
            for reply in _answer(request, channel):
                if reply["done"]:
                    reply["retire"] = limits.address_space() - size_at_start > RETIREMENT_BYTES
                channel.send(reply)
        except (EOFError, ConnectionError):
            return
        except (MemoryError, OSError):  # no memory was left to send the result
            channel.send({"error": "MemoryError", "done": True, "retire": True})


def _answer(request: dict[str, Any], channel: Channel) -> Iterator[dict[str, Any]]:
    """Run an operation and yield replies: its result, or each value if it returns an iterator, or an error."""
    operation = _import_operation(request["operation"])  # before memory is limited: libraries are not the item's
    try:
        with limits.limited_memory(request["memory"]):
            yield from _run(operation, request["arguments"], request["seconds"] + ORPHAN_GRACE_S, channel)
    except MemoryError:
        yield {"error": "MemoryError", "done": True}
    except InputError as error:
        name = "PolicyError" if isinstance(error, PolicyError) else "MediaError"
        yield {"error": name, "reason": str(error), "done": True}
    except Exception as error:
        yield {"error": type(error).__name__, "reason": str(error)[:MAX_REASON_LENGTH], "done": True}


def _run(
    operation: Callable[..., Any], arguments: list[Any], seconds: float, channel: Channel
) -> Iterator[dict[str, Any]]:
    with limits.deadline(seconds):
        result = operation(*arguments)
    if not isinstance(result, Iterator):
        yield {"value": result, "done": True}
        return
    while True:
        with limits.deadline(seconds):
            value = next(result, _END)
        if value is _END:
            yield {"done": True}
            return
        yield {"value": value, "done": False}
        channel.receive()  # the other process has taken the value out of the buffer


def _import_operation(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(":")
    operation: Callable[..., Any] = getattr(import_module(module), function)
    return operation


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

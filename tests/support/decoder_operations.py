"""Operations for decoder processes that do what hostile files make decoders do."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def process_id() -> int:
    return os.getpid()


def crash() -> None:
    """Read address 0, as a decoder with a memory error does."""
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def hang(started: Path | None = None) -> None:
    if started is not None:
        started.write_text(str(os.getpid()))
    while True:
        time.sleep(1)


def interrupt_parent_and_hang(started: Path) -> None:
    """Hang, and send the parent what Ctrl-C sends it."""
    started.write_text(str(os.getpid()))
    os.kill(os.getppid(), signal.SIGINT)
    time.sleep(600)


def block_signals_and_hang(started: Path) -> None:
    """Hang like native code that does not return: no Python signal handler and no thread of Python runs."""
    started.write_text(str(os.getpid()))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the global interpreter lock


def allocate(num_bytes: int) -> int:
    return len(bytearray(num_bytes))


def return_zeros(num_bytes: int) -> NDArray[np.uint8]:
    return np.zeros(num_bytes, np.uint8)


def fail() -> None:
    raise KeyError("no such box")


def fail_at_length() -> None:
    raise ValueError("x" * 1_000_000)


def count(stop: int, seconds: float) -> Iterator[NDArray[np.int64]]:
    for number in range(stop):
        time.sleep(seconds)
        yield np.full(3, number)


def echo(data: bytes, path: Path, array: NDArray[np.uint8], text: str) -> list[object]:
    return [data, path, array, text]


def print_noise() -> str:
    os.write(1, b"noise on stdout")
    os.write(2, b"noise on stderr")
    return "done"


def send_message(data: bytes) -> None:
    """Send something other than a reply, as a decoder does whose process a file has taken over."""
    Connection(int(sys.argv[2])).send_bytes(data)
    time.sleep(600)


def send_part_of_a_message() -> None:
    """Announce 100 bytes (four bytes, big endian) and send one."""
    os.write(int(sys.argv[2]), b"\0\0\0\x64[")
    time.sleep(600)


def end_after_a_value() -> None:
    """Send the first of several values, and end before the next one can be asked for."""
    connection = socket.socket(fileno=int(sys.argv[2]))
    connection.shutdown(socket.SHUT_RD)  # asking fails at once, not only when this process has ended
    Connection(connection.detach()).send_bytes(b'[{"done": false, "value": 1}, []]')
    os._exit(3)


def blocks_alarm() -> bool:
    return signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def address_space_limit() -> list[int]:
    return list(resource.getrlimit(resource.RLIMIT_AS))

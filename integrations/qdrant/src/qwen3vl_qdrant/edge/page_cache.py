"""Reading the files of a shard before the engine needs them, so that it finds them in the system's page cache.

The engine maps its files into memory, tells the system not to read ahead, and removes them from the page cache after it
has written an index. It then waits for the disk once for each page of 4 kB.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_READ_BYTES = 4 * 2**20
_AVAILABLE_SHARE = 4
"""A `ReadAhead` fills at most one of so many parts of the available memory."""
_READ_AHEAD = ("payload_storage/*.dat", "vector_storage*/matrix.dat", "vector_storage*/vectors/chunk_*.mmap")
"""Payloads, full vectors of indexed points, and those of others, below each segment: in this order."""
_MEMORY_INFO = Path("/proc/meminfo")
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container (cgroup v2), page cache included: a number of bytes, or `max`. Often there is none."""


def read_quantized_vectors(shard: Path) -> int:
    """Read the files of quantized vectors once, before the engine copies them into memory.

    Without this, opening takes several times as long.

    Args:
        shard: The folder of a shard.

    Returns:
        Number of bytes.
    """
    buffer = bytearray(_READ_BYTES)
    num_bytes = 0
    for path in shard.glob("segments/*/vector_storage*/quantized.data"):
        with suppress(OSError), path.open("rb", buffering=0) as file:  # the engine reports what it cannot read
            while length := file.readinto(buffer):
                num_bytes += length
    return num_bytes


class ReadAhead:
    """Reads the payloads and the full vectors of a shard once, in a thread: a search reads them in random order.

    It reads at most a quarter of the memory that is available, payloads first, and nothing where the system does not
    say how much is available (all but Linux).

    Args:
        shard: The folder of a shard.
    """

    def __init__(self, shard: Path) -> None:
        self._shard = shard
        self._stop = threading.Event()
        self._is_started = False

    def start(self) -> None:
        """Begin to read, unless this was called before."""
        if self._is_started:
            return
        self._is_started = True
        if max_bytes := available_memory() // _AVAILABLE_SHARE:
            thread = threading.Thread(target=self._run, args=(max_bytes,), name="qwen3vl-read-ahead", daemon=True)
            with suppress(RuntimeError):  # no more threads can be started: searches read what they need
                thread.start()

    def stop(self) -> None:
        """Let the thread end after its current read.

        Nobody waits for it: the garbage collector may call this in that thread, or while it waits for a lock of the
        caller.
        """
        self._stop.set()

    def _run(self, max_bytes: int) -> None:
        start = time.monotonic()
        num_bytes = 0
        with suppress(OSError, MemoryError):  # the engine reports what it cannot read
            buffer = memoryview(bytearray(_READ_BYTES))
            for pattern in _READ_AHEAD:
                for path in sorted(self._shard.glob(f"segments/*/{pattern}")):
                    num_bytes += self._read(path, buffer, max_bytes - num_bytes)
        log.debug("%s: read %d bytes ahead in %.1f s", self._shard, num_bytes, time.monotonic() - start)

    def _read(self, path: Path, buffer: memoryview, max_bytes: int) -> int:
        """Read a file without its holes, which the engine leaves for later points; return the number of bytes."""
        num_bytes = 0
        with path.open("rb", buffering=0) as file:
            for start, end in data_ranges(file.fileno()):
                position = start
                while position < end and num_bytes < max_bytes and not self._stop.is_set():
                    size = min(_READ_BYTES, end - position, max_bytes - num_bytes)
                    length = os.preadv(file.fileno(), [buffer[:size]], position)
                    if not length:  # the file was made shorter
                        break
                    position += length
                    num_bytes += length
                if self._stop.is_set():
                    break
        return num_bytes


def data_ranges(descriptor: int) -> Iterator[tuple[int, int]]:
    """Find the parts of a file that are not holes; on Linux.

    Args:
        descriptor: An open file.

    Yields:
        Where a part begins and ends.
    """
    end = 0
    while True:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # there is no more data
            return
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def available_memory() -> int:
    """Return the bytes of memory that processes and the page cache can still get, at most a container's limit.

    Returns:
        Number of bytes; 0 if the system does not say so.
    """
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMORY_INFO.read_text(), re.MULTILINE)
    except OSError:
        return 0
    available = 1024 * int(found[1]) if found else 0
    with suppress(OSError, ValueError):
        available = min(available, int(_CONTAINER_LIMIT.read_text()))
    return available

"""Reading the files of a shard before the engine needs them, so that it finds them in the system's page cache.

The engine maps its files into memory, tells the system not to read ahead, and removes them from the page cache after it
has written an index. It then waits for the disk once for each page of 4 kB.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

_READ_BYTES = 4 * 2**20
_AVAILABLE_SHARE = 4
"""At most one of so many parts of the available memory is filled by `ReadAhead`."""
_MEMORY_INFO = Path("/proc/meminfo")
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container, page cache included: a number of bytes, or `max`. It is missing in the root of cgroups."""


def read_quantized_vectors(shard: Path) -> int:
    """Read the files of quantized vectors once, before the engine copies them into memory.

    Without this, opening takes several times as long.

    Args:
        shard: The folder of a shard.

    Returns:
        Number of bytes.
    """
    return _read(shard.glob("segments/*/vector_storage*/quantized.data"), None, threading.Event())


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
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to read, unless this was called before."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="qwen3vl-read-ahead", daemon=True)
            with suppress(RuntimeError):  # no more threads can be started: searches read what they need
                self._thread.start()

    def stop(self) -> None:
        """Stop reading. Afterwards no file of the shard is open here."""
        self._stop.set()
        if self._thread is not None and self._thread.is_alive():  # it does not live in a forked process
            self._thread.join()

    def _run(self) -> None:
        paths = [
            path
            for pattern in ("payload_storage/*.dat", "vector_storage*/matrix.dat")
            for path in sorted(self._shard.glob(f"segments/*/{pattern}"))
        ]
        start = time.monotonic()
        num_bytes = _read(paths, available_memory() // _AVAILABLE_SHARE, self._stop)
        log.debug("%s: read %d bytes ahead in %.1f s", self._shard, num_bytes, time.monotonic() - start)


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


def _read(paths: Iterable[Path], max_bytes: int | None, stop: threading.Event) -> int:
    """Read files until `max_bytes` were read or `stop` is set; return the number of bytes.

    Files that cannot be read are left out: the engine reports them.
    """
    buffer = memoryview(bytearray(_READ_BYTES))
    num_bytes = 0
    for path in paths:
        with suppress(OSError), path.open("rb", buffering=0) as file:
            while not stop.is_set():
                size = _READ_BYTES if max_bytes is None else min(_READ_BYTES, max_bytes - num_bytes)
                length = file.readinto(buffer[:size])
                if not length:
                    break
                num_bytes += length
    return num_bytes

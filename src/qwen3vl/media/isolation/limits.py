"""Limits that the operating system enforces on a decoder process. Limits that it does not support are left out."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_STATM = Path("/proc/self/statm")
"""Sizes of this process in pages; the first is that of its address space (proc(5)). Linux only."""


def forbid_core_dumps() -> None:
    """Keep crashes from writing the process's memory to a file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def address_space() -> int:
    """Return the size of this process's address space in bytes; 0 where it is not known."""
    try:
        return int(_STATM.read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


@contextmanager
def limited_memory(max_bytes: int) -> Iterator[None]:
    """Let the address space grow by at most `max_bytes` within the block (`RLIMIT_AS`). Does nothing outside Linux.

    Args:
        max_bytes: Bytes beyond the present size of the address space.
    """
    size = address_space()
    if not size:
        yield
        return
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_AS)
    inherited = [limit for limit in (soft_limit, hard_limit) if limit != resource.RLIM_INFINITY]
    with suppress(OSError, ValueError):  # some sandboxes allow no changes
        resource.setrlimit(resource.RLIMIT_AS, (min([size + max_bytes, *inherited]), hard_limit))
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (soft_limit, hard_limit))


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """End this process with SIGALRM if the block takes longer. The system does it, even if native code hangs.

    Args:
        seconds: Time from now.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})  # the thread that started this process may block it
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)

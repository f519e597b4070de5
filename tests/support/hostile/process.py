"""The memory of processes, as Linux counts it."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self


def peak_memory(pid: int) -> int:
    """Return the peak of a process's resident memory in bytes; 0 if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def reset_peak_memory() -> None:
    """Let this process's peak begin at what it uses now."""
    Path("/proc/self/clear_refs").write_text("5")


def children(command: str = "") -> list[int]:
    """Return the ids of this process's children whose command line contains a text."""
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found += map(int, (task / "children").read_text().split())
    return [pid for pid in found if command in command_line(pid)]


def command_line(pid: int) -> str:
    """Return a process's command and arguments; nothing if it has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""


class PeakOfChildren:
    """Within the block, watches the memory of this process's children.

    A child that lives for less than some milliseconds may escape it.
    """

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max([self.peak, *map(peak_memory, children())])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

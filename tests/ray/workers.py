"""The worker processes of a Ray that this process has started, so that tests can kill them. For Linux."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_S = 0.05
"""Each look at a store is a request, which takes time from what is waited for."""
SHORT_INTERVALS: dict[str, Any] = {"health_check_period_s": 1, "graceful_shutdown_wait_loop_s": 0.1}
"""Options of deployments of Ray Serve: it would see after ten seconds that a replica is gone, and let each one that it
ends wait for two seconds."""


def children_of(pid: int) -> dict[int, str]:
    """Command lines of all processes below one, by process id."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:  # it has ended meanwhile
            continue
        parents[int(status.parent.name)] = int(fields["PPid"])
    found: set[int] = {pid}
    while grown := {child for child, parent in parents.items() if parent in found} - found:
        found |= grown
    return {child: _command_line(child) for child in found - {pid}}


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def model_workers() -> list[int]:
    """Process ids of the actors of data sets, which hold models."""
    return [pid for pid, command in children_of(os.getpid()).items() if command.startswith("ray::MapWorker")]


def wait_for(condition: Callable[[], bool], seconds: float = 300, poll_s: float = POLL_S) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not come true in {seconds} s")
        time.sleep(poll_s)

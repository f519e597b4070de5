"""Building the index of a shard in a process of its own.

Edge holds Python's global interpreter lock (GIL) during each call, and builds an index in one call, which takes from
seconds to many minutes. In a process of its own, it does not block the threads and event loops of this process, and
its memory is freed at the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import qdrant_edge as edge

_POLL_INTERVAL_S = 0.1
_INHERITS_DESCRIPTORS = os.name == "posix"
"""Whether a new process can be given descriptors: `subprocess` refuses `pass_fds` on Windows, where a process does not
inherit locks either."""
_BUILD = """\
import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)
import json, sys; sys.path[:] = json.loads(sys.argv[1])
import qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[2])
shard.optimize()
shard.close()
"""


class IndexBuildError(RuntimeError):
    """The index cannot be built. All points are stored, and searches find them without it, only slower."""


def build_index(path: Path, progress: Callable[[float], None] | None = None, *, keep_open: Sequence[int] = ()) -> None:
    """Let Edge index, merge and clean up the segments of a shard that no process has open.

    If this process is interrupted or killed meanwhile, the shard keeps all points, and the index that it had before.

    Args:
        path: The folder of the shard.
        progress: Called several times a second with the seconds that have passed; what it raises ends the building.
        keep_open: File descriptors that the other process inherits, so that locks on them are held until it ends. On
            Windows it inherits none: if this process is killed, only the lock of the engine keeps others away.

    Raises:
        IndexBuildError: The index cannot be built.
    """
    start = time.monotonic()
    if not sys.executable:  # Python is embedded in another program, and there is no interpreter to start
        _build_here(path)
        return
    try:  # with -P, which keeps modules of the current folder from being imported in place of Python's
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-c", _BUILD, json.dumps([*map(str, sys.path)]), str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=keep_open if _INHERITS_DESCRIPTORS else (),
        )
    except OSError as error:  # too little memory, too many open files
        raise IndexBuildError(
            f"the process that builds the index, {sys.executable}, cannot be started ({error}): searches are exact, "
            "and slower, until a later ingestion builds it"
        ) from error
    try:
        while True:
            try:
                _, errors = process.communicate(timeout=_POLL_INTERVAL_S)
                break
            except subprocess.TimeoutExpired:
                if progress is not None:
                    progress(time.monotonic() - start)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if process.returncode < 0:
        raise IndexBuildError(
            f"the process that builds the index was ended by signal {-process.returncode}, perhaps because there is "
            "too little memory: searches are exact, and slower, until a later ingestion builds it"
        )
    if process.returncode:
        lines = errors.decode(errors="replace").strip().splitlines()
        raise IndexBuildError(f"the index cannot be built: {lines[-1] if lines else 'no reason given'}")


def _build_here(path: Path) -> None:
    try:
        shard = edge.EdgeShard.load(str(path))
        shard.optimize()
        shard.close()
    except Exception as error:  # Edge raises no other type
        raise IndexBuildError(f"the index cannot be built: {error}") from error

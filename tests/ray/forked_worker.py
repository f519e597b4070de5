"""Starts the workers of `local_ray` as forks of one process that has imported what they need. For Linux.

A raylet runs this file for each worker, in place of Ray's `setup_worker.py`, with the worker's command line as
arguments. It sends them to a process that `serve_workers` has started, and ends: the worker is a fork of that process,
and runs Ray's own program, as it would without this file.

Workers with a runtime environment are started by Ray's `setup_worker.py`, and import what they need themselves.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

ADDRESS = "QWEN3VL_TEST_WORKERS"
"""Environment variable: a name in the abstract namespace of sockets."""
PRELOADED = (
    "fastapi",
    "pandas",
    "pyarrow.dataset",
    "qwen3vl.local.embedder",
    "qwen3vl.local.reranker",
    "qwen3vl.media.pdf",
    "qwen3vl.media.videos",
    "qwen3vl_qdrant",
    "uvicorn",
)
"""Nothing of Ray: it reads its settings, which differ between workers, and seeds the generator of its ids."""
LANGUAGE = "--language=PYTHON"
"""An argument for `setup_worker.py` alone."""
_POLL_S = 0.5


@contextmanager
def serve_workers() -> Iterator[str]:
    """Start the parent of all workers; yields the path of what a raylet runs for each of them."""
    os.environ[ADDRESS] = f"workers-{uuid4().hex}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{os.environ[ADDRESS]}")
        server.listen(64)
        command = [sys.executable, __file__, str(os.getpid()), str(server.fileno())]
        parent = subprocess.Popen(command, pass_fds=[server.fileno()])
    try:
        yield __file__
    finally:
        parent.kill()
        parent.wait()
        del os.environ[ADDRESS]


def start_worker(arguments: list[str]) -> None:
    command = [argument for argument in arguments if argument != LANGUAGE]
    if any("runtime-env-context" in argument for argument in command):
        package = find_spec("ray")
        assert package is not None
        assert package.origin is not None
        script = Path(package.origin).parent / "_private/workers/setup_worker.py"
        os.execv(sys.executable, [sys.executable, str(script), *arguments])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{os.environ[ADDRESS]}")
        client.sendall(json.dumps({"command": command, "environment": dict(os.environ)}).encode())


def fork_workers(driver: int, server_descriptor: int) -> None:
    """Fork a worker for each request, as long as the driver lives."""
    with socket.socket(fileno=server_descriptor) as server:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # Ray's default for a worker; libraries read it only once
        for name in PRELOADED:
            import_module(name)
        gc.freeze()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for workers: they must not stay as zombies
        server.settimeout(_POLL_S)
        while os.getppid() == driver:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            with connection, connection.makefile("rb") as file:
                request = json.loads(file.read())
            if not os.fork():
                break
        else:
            return
    run_worker(request)


def run_worker(request: dict[str, Any]) -> None:
    os.setpgrp()  # Ray kills the group of a worker that has ended
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(request["environment"])
    script, *_ = sys.argv = request["command"]
    sys.path[0] = str(Path(script).parent)  # as if Python ran that file
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        fork_workers(int(sys.argv[1]), int(sys.argv[2]))
    else:
        start_worker(sys.argv[1:])

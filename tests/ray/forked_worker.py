"""Starts the workers of `local_ray` as forks of a process that has imported what they need. For Linux.

A raylet runs this file for each worker, in place of Ray's `setup_worker.py`, with the worker's command line as
arguments. It sends them to a process that `serve_workers` has started, and ends. That process has a fork for each
environment of workers, which imports Ray there, because Ray reads its settings when it is imported. The worker is a
fork of that fork, and runs Ray's own program, as it would without this file.

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
from types import SimpleNamespace
from unittest import mock
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
PRELOADED_IN_ENVIRONMENT = (
    "qwen3vl_ray.ingestion",
    "ray._private.workers.default_worker",
    "ray.serve._private.replica",
)
"""What imports Ray."""
LANGUAGE = "--language=PYTHON"
"""An argument for `setup_worker.py` alone."""
_POLL_S = 0.5
_MAX_BYTES = 2**20
"""Maximum size of a command line as JSON."""


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
    """Have a worker forked for each request, as long as the driver lives."""
    forks: dict[str, socket.socket] = {}
    """The other ends of the sockets of those that fork workers, by environment."""
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
            key = json.dumps(request["environment"], sort_keys=True)
            if key not in forks:
                forks[key], commands = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                if not os.fork():
                    break
                commands.close()
            forks[key].sendall(json.dumps(request["command"]).encode())
        else:
            return
    for fork in forks.values():
        fork.close()
    fork_in_environment(request["environment"], commands)


def fork_in_environment(environment: dict[str, str], commands: socket.socket) -> None:
    """Import Ray in an environment, and fork a worker for each command, until the other end of the socket is closed."""
    os.environ.clear()
    os.environ.update(environment)
    import_ray()
    if draw_id() == draw_id():
        raise RuntimeError("the generator of Ray's ids is seeded already: workers would draw equal ids")
    gc.freeze()
    with commands:
        while command := commands.recv(_MAX_BYTES):
            if not os.fork():
                break
        else:
            return
    run_worker(json.loads(command))


def import_ray() -> None:
    """Import Ray without a draw from its generator of ids.

    Ray's libraries define actors, whose classes have ids of that generator. The first one seeds it, and forks of this
    process would go on with one sequence.
    """
    import ray.actor
    from ray import ActorClassID

    random_ids = SimpleNamespace(from_random=lambda: ActorClassID(os.urandom(ActorClassID.size())))
    with mock.patch.object(ray.actor, "ActorClassID", random_ids):
        for name in PRELOADED_IN_ENVIRONMENT:
            import_module(name)


def draw_id() -> bytes:
    """Draw an id of Ray in a fork of this process."""
    from ray import UniqueID

    reader, writer = os.pipe()
    if not os.fork():
        os.write(writer, UniqueID.from_random().binary())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        return file.read()


def run_worker(command: list[str]) -> None:
    os.setpgrp()  # Ray kills the group of a worker that has ended
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    script, *_ = sys.argv = command
    sys.path[0] = str(Path(script).parent)  # as if Python ran that file
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        fork_workers(int(sys.argv[1]), int(sys.argv[2]))
    else:
        start_worker(sys.argv[1:])

"""What each hostile file does to a process that reads it without isolation: seconds, peak memory and outcome.

    uv run python -m benchmarks.hostile [--seconds 12] [--memory-mib 4096] [--only pdf-]

Each file is embedded and loaded in a process of its own, which is killed at either limit.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen3vl import Embedder, MediaPolicy
from qwen3vl.loaders import Loader
from tests.support.hostile.corpus import CORPUS
from tests.support.hostile.file import MIB, HostileFile
from tests.support.hostile.process import peak_memory, reset_peak_memory

STEPS = ("embed", "load")


@dataclass(frozen=True, slots=True)
class Limits:
    """When a process is killed.

    Attributes:
        seconds: Its maximum duration for each step.
        memory: Its maximum growth of resident memory, in bytes.
    """

    seconds: float
    memory: int


def embed(file: HostileFile, folder: Path) -> str:
    batch = Embedder("tiny", policy=MediaPolicy(folders=(folder,))).embed([file.item(folder)], on_error="collect")
    return batch.errors[0].reason if batch.errors else "result"


def load(file: HostileFile, folder: Path) -> str:
    kinds: dict[str, int] = {}
    for loaded in Loader(policy=MediaPolicy(folders=(folder,))).load(folder / file.name):
        kind = type(loaded).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())


def run(step: str, file: HostileFile, folder: Path) -> str:
    try:
        return (embed if step == "embed" else load)(file, folder)
    except Exception as error:
        return f"ESCAPED {type(error).__name__}: {error}"


def measure(step: str, file: HostileFile, folder: Path, limits: Limits) -> dict[str, Any]:
    """Run a step in a forked process, and kill it at a limit."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        reset_peak_memory()
        before = peak_memory(os.getpid())
        started = time.perf_counter()
        outcome = run(step, file, folder)
        report = {"seconds": time.perf_counter() - started, "before": before, "outcome": outcome}
        os.write(writer, json.dumps(report | {"peak": peak_memory(os.getpid())}).encode())
        os._exit(0)
    os.close(writer)
    before = peak = peak_memory(pid)
    started = time.perf_counter()
    killed = ""
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        peak = max(peak, peak_memory(pid))
        if peak - before > limits.memory:
            killed = "KILLED for memory"
        elif time.perf_counter() - started > limits.seconds:
            killed = "KILLED for time"
        if killed:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            break
        time.sleep(0.02)
    with os.fdopen(reader, "rb") as pipe:
        written = pipe.read()
    if written and not killed:
        report = json.loads(written)
        growth = report["peak"] - report["before"]
        return {"seconds": report["seconds"], "growth": growth, "outcome": report["outcome"]}
    return {"seconds": time.perf_counter() - started, "growth": peak - before, "outcome": killed or "CRASHED"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=12.0, help="kill a process after this time")
    parser.add_argument("--memory-mib", type=int, default=4096, help="kill a process that grows by more")
    parser.add_argument("--only", default="", help="only files whose name contains this")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # decoders warn of thousands of tags
    limits = Limits(arguments.seconds, arguments.memory_mib * MIB)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        for file in CORPUS.values():
            if arguments.only not in file.name:
                continue
            path = file.write(folder)
            row = [
                f"{file.name:34}",
                f"{path.stat().st_size / 1000:9.1f} kB",
                f"{file.attacks:6}",
                f"{file.expected:6}",
            ]
            for step in STEPS:
                measured = measure(step, file, folder, limits)
                row.append(
                    f"{measured['seconds']:6.2f} s {measured['growth'] / MIB:6.0f} MiB  {measured['outcome'][:110]}"
                )
            print(" | ".join(row), flush=True)
            path.unlink()


if __name__ == "__main__":
    main()

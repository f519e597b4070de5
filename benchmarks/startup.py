"""How long a `qwen3vl search` takes from the shell, and where the time goes.

    uv run python -m benchmarks.startup [--runs 9]

Makes a small store with the tiny model in a temporary folder, runs the real command in fresh processes, and prints
Markdown: wall and CPU time of the command, the phases of the same work by the library, and the time of imports by
package. The first run of each command warms the file system's cache and is not counted. CPU time is shown beside wall
time since it depends less on what else the machine does; the load average, printed first, shows how busy it is. Phases
have no such first run, and do not include the start of Python.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from random import Random

from qwen3vl import Embedder, Loader, ingest, open_store
from qwen3vl.demo.scenes import random_scene

QUERY = "a red circle"
NUM_IMAGES = 20
MAX_PACKAGES = 12
"""Number of packages that the table of imports lists; the others are summed."""

PHASES = """
import json, sys, time

phases = {}
started = time.perf_counter(), time.process_time()

def end_phase(name):
    global started
    now = time.perf_counter(), time.process_time()
    phases[name] = [now[0] - started[0], now[1] - started[1]]
    started = now

import torch
end_phase("import torch")
from qwen3vl import Embedder, Retriever, open_store
end_phase("import the rest of qwen3vl")
store = open_store(sys.argv[1])
recipe = store.recipe()
end_phase("open the store (imports its client)")
embedder = Embedder(recipe.model, device="cpu", **recipe.settings)
end_phase("load the model")
hits = Retriever(embedder, store).search(sys.argv[2], 10)
end_phase("the query")
store.close()
assert hits
end_phase("close the store")
print(json.dumps(phases))
"""
"""What `qwen3vl search` does, by the library, with the time of each phase."""


def write_store(folder: Path) -> str:
    """Embed a few drawn scenes with the tiny model into a store below a folder.

    Args:
        folder: An empty folder.

    Returns:
        The store's location.
    """
    images = folder / "images"
    images.mkdir()
    random = Random(2026)
    for number in range(NUM_IMAGES):
        random_scene(random).draw(random).save(images / f"{number}.png")
    location = str(folder / "store")
    with Embedder("tiny", device="cpu") as embedder:
        store = open_store(location)
        ingest(Loader().load(images), embedder, store)
        store.close()
    return location


def time_process(command: Sequence[str]) -> tuple[float, float, str, str]:
    """Run a command in a fresh process.

    Args:
        command: The command and its arguments.

    Returns:
        Wall time and CPU time (user and system) in seconds, and what it wrote to standard output and standard error.

    Raises:
        subprocess.CalledProcessError: The command failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, result.stdout, result.stderr


def import_times(importtime_log: str) -> dict[str, float]:
    """Sum the time of imports by top-level package.

    Args:
        importtime_log: What `python -X importtime` wrote to standard error.

    Returns:
        Seconds by package, without what a package's modules import from other packages. All modules of the standard
        library are summed under `Python's standard library`.
    """
    seconds: defaultdict[str, float] = defaultdict(float)
    for match in re.finditer(r"^import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)$", importtime_log, re.MULTILINE):
        package = match[2].partition(".")[0]
        standard = package.lstrip("_") in sys.stdlib_module_names or package in sys.stdlib_module_names
        seconds["Python's standard library" if standard else package] += int(match[1]) / 1e6
    return seconds


def format_spread(values: Sequence[float]) -> str:
    """Format seconds as cells of a table: median, least and most.

    Args:
        values: Seconds.

    Returns:
        Three cells.
    """
    return f"{statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f}"


def print_command_times(location: str, runs: int) -> None:
    """Print a table of the wall and CPU time of the real command, and of the import of torch alone beside it.

    Args:
        location: The store.
        runs: Number of processes of each that count, after one that does not.
    """
    commands = {
        f'`qwen3vl search "{QUERY}" --store DIR`': ["-m", "qwen3vl", "search", QUERY, "--store", location],
        '`python -c "import torch"`': ["-c", "import torch"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, arguments in commands.items():
            wall, cpu, _, _ = time_process([sys.executable, *arguments])
            if number:
                times[name].append((wall, cpu))
    print("| seconds | | median | least | most |\n| --- | --- | ---: | ---: | ---: |")
    for name, measured in times.items():
        print(f"| {name} | wall | {format_spread([wall for wall, _ in measured])} |")
        print(f"| | user and system | {format_spread([cpu for _, cpu in measured])} |")


def print_phases(location: str, runs: int) -> None:
    """Print a table of the phases of a search by the library: the median wall and CPU time of each.

    Args:
        location: The store.
        runs: Number of processes; all of them count.
    """
    measured = [json.loads(time_process([sys.executable, "-c", PHASES, location, QUERY])[2]) for _ in range(runs)]
    print("| phase | wall s | CPU s |\n| --- | ---: | ---: |")
    for name in measured[0]:
        wall, cpu = (statistics.median(phases[name][index] for phases in measured) for index in (0, 1))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")


def print_imports(location: str) -> None:
    """Print the time of imports by package, in one process with `-X importtime`, which itself takes time.

    Args:
        location: The store.
    """
    command = [sys.executable, "-X", "importtime", "-m", "qwen3vl", "search", QUERY, "--store", location]
    seconds = import_times(time_process(command)[3])
    print("| imports | s |\n| --- | ---: |")
    packages = sorted(seconds.items(), key=lambda item: item[1], reverse=True)
    for package, value in packages[:MAX_PACKAGES]:
        print(f"| {package} | {value:.2f} |")
    print(f"| {len(packages[MAX_PACKAGES:])} others | {sum(value for _, value in packages[MAX_PACKAGES:]):.2f} |")
    print(f"| all | {sum(seconds.values()):.2f} |")


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9, help="fresh processes for each figure (default 9)")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, load average {load:.1f}\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        location = write_store(Path(scratch))
        print_command_times(location, options.runs)
        print()
        print_phases(location, options.runs)
        print()
        print_imports(location)


if __name__ == "__main__":
    main()

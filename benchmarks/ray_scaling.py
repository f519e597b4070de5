"""Throughput of `qwen3vl_ray` against the number of workers, on a simulated cluster of Ray.

    python -m benchmarks.ray_scaling --workers 1 2 4 8 16 32 --json scaling.json --plot docs/images/ray-scaling.png

Each batch has the times when it was begun and done, from which the rows are counted that were embedded while all
workers worked (`benchmarks.ray_stamps`). A simulated GPU cannot do more than `--rate`: more than 100 % of linear is an
error of the count, and is raised.

All nodes share the cores of this machine, which real nodes would not. What is lost when `cores used` nears the cores of
the machine is lost to them, and not to Ray. With the defaults, a batch takes a simulated GPU 6.4 s.

A worker needs 250 MiB. `--plot` needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ray_cluster import cluster, operator, repeated
from benchmarks.ray_stamps import BEGAN, DONE, WORKER, collect_batches, rows_per_s, steady_window
from tests.ray.workers import children_of

SAMPLE_S = 1.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What so many workers did in the window that is measured.

    Attributes:
        workers: Number of workers.
        rows_per_s: Rows a second.
        of_linear: Share of what as many GPUs would do without any overhead.
        cores: Cores that all processes of the cluster and the driver used.
        window_s: Length of the window.
    """

    workers: int
    rows_per_s: float
    of_linear: float
    cores: float
    window_s: float


def measure(num_workers: int, rate: float, seconds: float, batch_size: int) -> Measured:
    """Run so many workers, and measure while all of them work."""
    import ray
    from qwen3vl_ray.pools import map_on_models

    ray.data.DataContext.get_current().enable_progress_bars = False
    num_rows = int(num_workers * rate * seconds) // batch_size * batch_size
    rows = ray.data.range(num_rows, override_num_blocks=max(num_rows // 4096, num_workers))
    vectors = map_on_models(
        rows.map_batches(add_texts, batch_format="pyarrow"),
        operator(),
        {"rate": rate},
        num_gpus=1,
        min_workers=num_workers,
        max_workers=num_workers,
        batch_size=batch_size,
    )
    with sampled_cpu() as cpu_s:
        batches = collect_batches(vectors.select_columns([BEGAN, DONE, WORKER]).iter_batches(batch_size=None))
    if (arrived := sum(batch.rows for batch in batches)) != num_rows:
        raise RuntimeError(f"{arrived} rows arrived of {num_rows}")
    first_s, last_s = steady_window(batches, num_workers)
    window_s, found = last_s - first_s, rows_per_s(batches, first_s, last_s)
    of_linear = found / (num_workers * rate)
    if of_linear > 1:
        raise RuntimeError(f"{of_linear:.2%} of what the simulated GPUs can do: the count is wrong")
    return Measured(num_workers, found, of_linear, (cpu_s(last_s) - cpu_s(first_s)) / window_s, window_s)


@contextmanager
def sampled_cpu() -> Iterator[Callable[[float], float]]:
    """Sample the CPU time of this process and of all below it; yields a function of a time of `time.monotonic`."""
    import numpy as np

    used_s: dict[int, float] = {}  # also of processes that have ended
    samples: list[tuple[float, float]] = []

    def sample() -> None:
        for pid in (os.getpid(), *children_of(os.getpid())):
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            used_s[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime
        samples.append((time.monotonic(), sum(used_s.values())))

    with repeated(sample, SAMPLE_S):
        yield lambda at_s: float(np.interp(at_s, [at for at, _ in samples], [used for _, used in samples]))


def add_texts(table: Any) -> Any:
    """Return documents for a range of ids."""
    import pyarrow as pa

    ids = table.column("id").to_pylist()
    return pa.table({"id": ids, "text": [f"page {number}" for number in ids]})


def plot(measured: list[Measured], path: Path) -> None:
    """Draw the throughput beside that of as many GPUs without overhead."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    workers = [each.workers for each in measured]
    linear = [each.rows_per_s / each.of_linear for each in measured]
    figure, axes = plt.subplots(figsize=(6.5, 4.0), layout="constrained")
    axes.plot(workers, linear, color="grey", linestyle="--", linewidth=1, label="linear")
    axes.plot(workers, [each.rows_per_s for each in measured], marker="o", label="measured")
    for each in measured:
        axes.annotate(
            f"{each.of_linear:.0%}", (each.workers, each.rows_per_s), (4, -12), textcoords="offset points", fontsize=8
        )
    axes.set(xscale="log", yscale="log", xlabel="workers, of a simulated GPU each", ylabel="rows a second")
    axes.set_xticks(workers, [str(number) for number in workers])
    axes.set_yticks(linear, [f"{value:,.0f}" for value in linear])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: Iterable[str] | None = None) -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--rate", type=float, default=40.0, help="inputs a second of a simulated GPU")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long the workers are to work")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for a plot, such as a .png")
    options = parser.parse_args(None if arguments is None else list(arguments))
    measured: list[Measured] = []
    print("| workers | rows a second | of linear | cores used |\n| ---: | ---: | ---: | ---: |", flush=True)
    for num_workers in options.workers:
        with cluster(num_workers):
            each = measure(num_workers, options.rate, options.seconds, options.batch_size)
        measured.append(each)
        print(
            f"| {num_workers} | {each.rows_per_s:,.0f} | {each.of_linear:.1%} | {each.cores:.2f} |",
            flush=True,
        )
    if options.json:
        settings = {"rate": options.rate, "seconds": options.seconds, "batch_size": options.batch_size}
        answer = {**settings, "measured": [asdict(each) for each in measured]}
        options.json.write_text(json.dumps(answer, indent=1) + "\n")
    if options.plot:
        plot(measured, options.plot)


if __name__ == "__main__":
    main()

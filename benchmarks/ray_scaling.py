"""Throughput of `qwen3vl_ray` against the number of workers, on a simulated cluster of Ray.

    python -m benchmarks.ray_scaling --workers 1 2 4 8 16 32 --json scaling.json --plot docs/images/ray-scaling.png

A worker needs 250 MiB. `--plot` needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.ray_cluster import DONE, cluster, operator
from tests.ray.workers import children_of


@dataclass(frozen=True, slots=True)
class Measured:
    """What so many workers did.

    Attributes:
        workers: Number of workers.
        rows_per_s: Rows a second in the middle half of the run.
        of_linear: Share of what as many GPUs would do without any overhead.
        cpu_s_per_batch: Seconds of a core that all processes of the cluster and the driver worked for each batch.
    """

    workers: int
    rows_per_s: float
    of_linear: float
    cpu_s_per_batch: float


def measure(num_workers: int, rate: float, seconds: float, batch_size: int) -> Measured:
    """Run so many workers; count in the middle half of the run, when all of them work."""
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
    done: list[float] = []  # when workers were done with each row: rows arrive here in bursts
    started_s = cpu_before_s = 0.0
    for batch in vectors.select_columns([DONE]).iter_batches(batch_size=None):
        if not done:
            started_s, cpu_before_s = time.time(), cpu_s()
        done += batch[DONE].tolist()
    cpu_after_s = cpu_s()
    if len(done) != num_rows:
        raise RuntimeError(f"{len(done)} rows arrived of {num_rows}")
    done.sort()
    first_s, last_s = done[num_rows // 4], done[num_rows * 3 // 4]
    # Rows of a batch are done at the same time: those of the first one were begun before the time that is measured.
    rows_per_s = sum(first_s < each <= last_s for each in done) / (last_s - first_s)
    num_batches = sum(each > started_s for each in done) / batch_size
    return Measured(
        num_workers, rows_per_s, rows_per_s / (num_workers * rate), (cpu_after_s - cpu_before_s) / max(num_batches, 1)
    )


def cpu_s() -> float:
    """Return the CPU seconds of this process and of all below it that run."""
    ticks = 0
    for pid in (os.getpid(), *children_of(os.getpid())):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        ticks += int(fields[11]) + int(fields[12])  # utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


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
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a measurement is to take")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--plot", type=Path, help="file for a plot, such as a .png")
    options = parser.parse_args(None if arguments is None else list(arguments))
    measured: list[Measured] = []
    print("| workers | rows a second | of linear | CPU, ms a batch |\n| ---: | ---: | ---: | ---: |", flush=True)
    for num_workers in options.workers:
        with cluster(num_workers):
            each = measure(num_workers, options.rate, options.seconds, options.batch_size)
        measured.append(each)
        print(
            f"| {num_workers} | {each.rows_per_s:,.0f} | {each.of_linear:.0%} | {1000 * each.cpu_s_per_batch:.0f} |",
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

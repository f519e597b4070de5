"""What `qwen3vl_ray` costs beside the model: memory over many documents, overhead with one worker, a PDF of many pages.

    python -m benchmarks.ray_costs memory --documents 200000
    python -m benchmarks.ray_costs overhead --pictures 2000
    python -m benchmarks.ray_costs pdf --pages 2000

`memory` and `pdf` run on the simulated cluster of `benchmarks.ray_cluster`; `overhead` compares a model in a worker
with the same model in this process, with one thread each.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # as Ray sets it for a worker of one core

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.models import SIZES, write
from benchmarks.ray_cluster import cluster, operator, repeated
from benchmarks.ray_stamps import BEGAN
from tests.ray.workers import children_of

MIB = 2**20
SAMPLE_S = 1.0


@dataclass(slots=True)
class Memory:
    """Memory in MiB at the quarters of a run.

    Attributes:
        store: The object stores of all nodes.
        spilled: What they have written to disk.
        workers: The largest process of a pool of models, without memory that it shares.
        tasks: The largest process of other tasks, likewise.
        driver: The driver, likewise.
    """

    store: list[float] = field(default_factory=list)
    spilled: list[float] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)
    tasks: list[float] = field(default_factory=list)
    driver: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Add a sample."""
        used, spilled = object_store_bytes()
        self.store.append(used / MIB)
        self.spilled.append(spilled / MIB)
        processes = children_of(os.getpid())
        groups: dict[bool, list[float]] = {True: [0.0], False: [0.0]}
        for pid, command in processes.items():
            if command.startswith("ray::"):
                groups[command.startswith("ray::MapWorker")].append(private_mib(pid))
        self.workers.append(max(groups[True]))
        self.tasks.append(max(groups[False]))
        self.driver.append(private_mib(os.getpid()))

    def quarters(self) -> dict[str, list[float]]:
        """Return the maximum of each quarter."""
        return {
            name: [round(max(values[len(values) * n // 4 : len(values) * (n + 1) // 4] or [0.0]), 1) for n in range(4)]
            for name, values in asdict(self).items()
        }


def private_mib(pid: int) -> float:
    """Return the memory of a process that it does not share."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0.0
    return float(next((line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")), 0)) / 1024


def object_store_bytes() -> tuple[int, int]:
    """Return what all object stores hold, and what they have spilled."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)  # type: ignore[no-untyped-call]
    stats = get_memory_info_reply(state).store_stats  # type: ignore[no-untyped-call]
    return int(stats.object_store_bytes_used), int(stats.spilled_bytes_total)


@contextmanager
def sampled() -> Iterator[Memory]:
    """Sample memory until the end of the context."""
    memory = Memory()
    with repeated(memory.sample, SAMPLE_S):
        yield memory


def simulate(rows: Any, num_workers: int, **settings: Any) -> Any:
    """Return a dataset of rows with simulated vectors; the settings are those of `SleepingEmbedder`."""
    import ray
    from qwen3vl_ray.pools import map_on_models

    ray.data.DataContext.get_current().enable_progress_bars = False
    return map_on_models(
        rows,
        operator(),
        settings,
        num_gpus=1,
        min_workers=num_workers,
        max_workers=num_workers,
        batch_size=64,
    )


def measure_memory(num_documents: int, rate: float, num_workers: int) -> dict[str, Any]:
    """Embed a manifest of references to pictures that are not opened."""
    from qwen3vl_ray import read

    with TemporaryDirectory() as folder, cluster(num_workers):
        manifest = Path(folder) / "documents.jsonl"
        with manifest.open("w") as file:
            for number in range(num_documents):
                file.write(f'{{"source": "s/{number}", "text": "document {number}", "album": "{number % 100}"}}\n')
        count, started_s = 0, time.perf_counter()
        with sampled() as memory:
            for batch in simulate(read(manifest), num_workers, rate=rate).iter_batches(batch_size=None):
                count += len(batch["id"])
        seconds = time.perf_counter() - started_s
    return {"documents": count, "seconds": round(seconds, 1), "MiB by quarter": memory.quarters()}


def measure_pdf(num_pages: int, rate: float) -> dict[str, Any]:
    """Read a PDF of many pages into a simulated model, which renders them.

    A batch of pages is rendered after it was begun: the vectors that are here when the last batch is begun have not
    waited for all pages.
    """
    from PIL import Image
    from qwen3vl_ray import read

    with TemporaryDirectory() as folder, cluster(1):
        file = Path(folder) / "pages.pdf"
        first, *others = [Image.new("1", (64, 64), number % 2) for number in range(num_pages)]
        first.save(file, save_all=True, append_images=others)
        arrived: list[float] = []
        begun: list[float] = []
        started_s = time.monotonic()
        with sampled() as memory:
            for batch in simulate(read(file), 1, rate=rate, opens_images=True).iter_batches(batch_size=None):
                arrived += [time.monotonic() - started_s] * len(batch["id"])
                begun += (batch[BEGAN] - started_s).tolist()
                if any(batch["error"]):
                    raise RuntimeError(f"a page failed: {next(filter(None, batch['error']))}")
    return {
        "pages": len(arrived),
        "first vector after s": round(arrived[0], 1),
        "pages that are not rendered then": sum(each > arrived[0] for each in begun),
        "last batch begun after s": round(max(begun), 1),
        "last vector after s": round(arrived[-1], 1),
        "vectors here when the last batch is begun": sum(each < max(begun) for each in arrived),
        "MiB by quarter": memory.quarters(),
    }


def measure_overhead(num_pictures: int, rounds: int, size: str, side: int | None, batch_size: int) -> dict[str, Any]:
    """Embed pictures in this process, and in one worker.

    The worker's time is that from the begin of its first batch until the last result is here: the start of processes
    is left out, as is the loading of the model in this process.
    """
    import ray
    import torch
    from qwen3vl_ray.pools import map_on_models

    from qwen3vl import Embedder
    from qwen3vl.demo.scenes import random_scene

    torch.set_num_threads(1)
    rates: dict[str, list[float]] = {"plain": [], "ray": []}
    with TemporaryDirectory() as folder:
        model = "tiny" if size == "tiny" else str(write(Path(folder), size) / "embedding")
        paths = draw(random_scene, num_pictures, side, Path(folder))
        ray.init("local", num_cpus=3, include_dashboard=False, object_store_memory=128 * MIB, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        # Without a cache, or the pictures of the second round would be known in this process, and not in its worker.
        settings: dict[str, Any] = {"model": model, "device": "cpu", "vision_cache": 0}
        for _ in range(rounds):
            with Embedder(**settings) as embedder:  # a new one, as the worker's
                rates["plain"].append(num_pictures / plain_seconds(embedder, paths))
            rows = ray.data.from_items([{"image": path} for path in paths])
            pool = {"num_gpus": 0, "min_workers": 1, "max_workers": 1, "batch_size": batch_size}
            rates["ray"].append(num_pictures / remote_seconds(map_on_models(rows, stamped_embed(), settings, **pool)))
        ray.shutdown()
    overheads = [round(plain / remote - 1, 3) for plain, remote in zip(rates["plain"], rates["ray"], strict=True)]
    return {"pictures": num_pictures, "a second": rates, "overhead": overheads}


def draw(random_scene: Any, num_pictures: int, side: int | None, folder: Path) -> list[str]:
    """Draw pictures of the demo, enlarged to a number of pixels on each side."""
    from random import Random

    random = Random(1)
    paths = [str(folder / f"{number}.png") for number in range(num_pictures)]
    for path in paths:
        picture = random_scene(random).draw(random)
        (picture.resize((side, side)) if side else picture).save(path)
    return paths


def stamped_embed() -> type:
    """Return `Embed` with a column that says when a batch was begun; Ray is imported here, after its settings."""
    import pyarrow as pa
    from qwen3vl_ray import Embed
    from qwen3vl_ray.rows import set_column

    class StampedEmbed(Embed):
        def __call__(self, batch: pa.Table) -> pa.Table:
            began_s = time.monotonic()  # all processes of a machine share its zero
            table = super().__call__(batch)
            return set_column(table, BEGAN, pa.array([began_s] * table.num_rows))

    return StampedEmbed


def plain_seconds(embedder: Any, paths: list[str]) -> float:
    """Embed in this process, as a stream: the next images are decoded while the model runs, as in a worker."""
    start_s = time.monotonic()
    for _, value in embedder.stream({"image": path} for path in paths):
        if isinstance(value, Exception):
            raise value
    return time.monotonic() - start_s


def remote_seconds(dataset: Any) -> float:
    """Embed by Ray; return the seconds from the begin of the first batch until all results are here."""
    began_s, ended_s = float("inf"), 0.0
    for batch in dataset.iter_batches(batch_size=None):
        if any(batch["error"]):
            raise RuntimeError(f"a picture failed: {next(filter(None, batch['error']))}")
        began_s, ended_s = min(began_s, *batch[BEGAN].tolist()), time.monotonic()
    return ended_s - began_s


def main() -> None:
    """Print the answer as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["memory", "overhead", "pdf"])
    parser.add_argument("--documents", type=int, default=200_000)
    parser.add_argument("--pictures", type=int, default=2000, help="of `overhead`")
    parser.add_argument("--size", default="tiny", choices=[*SIZES, "tiny"], help="of the model of `overhead`")
    parser.add_argument("--side", type=int, help="height and width of the pictures in pixels; by default the demo's")
    parser.add_argument("--batch-size", type=int, default=64, help="of the worker of `overhead`")
    parser.add_argument("--pages", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=1000.0, help="inputs a second of a simulated GPU")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the answer")
    options = parser.parse_args()
    if options.what == "memory":
        answer = measure_memory(options.documents, options.rate, options.workers)
    elif options.what == "pdf":
        answer = measure_pdf(options.pages, options.rate)
    else:
        answer = measure_overhead(options.pictures, options.rounds, options.size, options.side, options.batch_size)
    text = json.dumps(answer, indent=1)
    print(text)
    if options.json:
        options.json.write_text(f"{text}\n")


if __name__ == "__main__":
    main()

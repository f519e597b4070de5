"""Every dtype on the CPU: loading, memory, and the speed of documents, of an image and of a short query.

    uv run python -m benchmarks.dtypes [--size small] [--dtypes float32 bfloat16 int8 fp8] [--documents 16]

The model has random weights, stored in bfloat16 as the published ones are. Each dtype runs in a process of its own,
whose peak of memory after loading is that of loading. The processes then take turns, because the speed of a shared
machine changes within minutes; all models are in memory at once. `--size 2B` writes 8 GB.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import draw_image, random_words
from benchmarks.many import peak_mib, resident_mib
from benchmarks.models import SIZES, write

WORDS_PER_DOCUMENT = 250
IMAGE_SIZE = (640, 448)
"""Width and height of the image: 280 tokens."""
QUERY = "who painted the mona lisa in florence"
ROUNDS = 5


def measure(folder: Path, dtype: str, num_documents: int, vectors_file: Path) -> Iterator[dict[str, float]]:
    """Load a model in this process and measure it.

    Args:
        folder: The checkpoint.
        dtype: The dtype.
        num_documents: Number of texts in a call.
        vectors_file: Where the vectors are written, `.npy`.

    Yields:
        Figures by name: first those of loading, then those of one round after the other. Times are in seconds, memory
        in MiB.
    """
    from qwen3vl import Embedder

    before = resident_mib()
    began = time.perf_counter()
    embedder = Embedder(folder, device="cpu", dtype=dtype, vision_cache=0)
    load_s = time.perf_counter() - began
    peak, after = peak_mib(), resident_mib()
    random = Random(5)
    documents = [random_words(random, WORDS_PER_DOCUMENT) for _ in range(num_documents)]
    image = {"image": draw_image(vectors_file.parent, random, *IMAGE_SIZE)}
    np.save(vectors_file, embedder.embed([*documents, image, QUERY]))
    tokens_before = embedder.engine.stats.tokens_computed
    embedder.embed(documents)
    tokens = embedder.engine.stats.tokens_computed - tokens_before
    yield {"load_s": load_s, "load_peak_mib": peak - before, "model_mib": after - before, "tokens": tokens}
    while True:
        yield {
            "documents_s": seconds(lambda: embedder.embed(documents)),
            "image_s": seconds(lambda: embedder.embed(image)),
            "query_s": min(seconds(lambda: embedder.embed(QUERY)) for _ in range(3)),
        }


def seconds(work: Callable[[], Any]) -> float:
    """Return the time that a function takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ask(process: subprocess.Popen[str]) -> dict[str, float]:
    """Let a process that runs `measure` measure once more, and return the figures."""
    print("next", file=process.stdin, flush=True)
    figures: dict[str, float] = json.loads(next(iter(process.stdout or ())))
    return figures


def print_rows(folder: Path, dtypes: list[str], num_documents: int, scratch: Path) -> None:
    """Measure all dtypes in turns and print a row of the table for each."""
    with ExitStack() as stack:
        processes: dict[str, subprocess.Popen[str]] = {}
        loading: dict[str, dict[str, float]] = {}
        for dtype in dtypes:
            command = [sys.executable, "-m", "benchmarks.dtypes", "--folder", str(folder)]
            command += ["--documents", str(num_documents), "--measure", dtype, str(scratch / f"{dtype}.npy")]
            pipe = subprocess.PIPE
            processes[dtype] = stack.enter_context(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
            loading[dtype] = ask(processes[dtype])
        rounds = [{dtype: ask(process) for dtype, process in processes.items()} for _ in range(ROUNDS)]
    exact = np.load(scratch / f"{dtypes[0]}.npy")
    for dtype in dtypes:
        load, times = loading[dtype], [figures[dtype] for figures in rounds]
        ratio = statistics.median(
            figures[dtypes[0]]["documents_s"] / figures[dtype]["documents_s"] for figures in rounds
        )
        print(
            f"| {dtype} | {load['load_s']:.1f} | {load['load_peak_mib']:.0f} | {load['model_mib']:.0f} "
            f"| {load['tokens'] / statistics.median(time['documents_s'] for time in times):.0f} | {ratio:.2f} "
            f"| {statistics.median(time['image_s'] for time in times):.2f} "
            f"| {statistics.median(time['query_s'] for time in times):.3f} "
            f"| {(np.load(scratch / f'{dtype}.npy') * exact).sum(1).min():.5f} |"
        )


def main() -> None:
    """Print the table, with medians of `ROUNDS` rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8", "fp8"])
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the model is, or is written; a temporary folder otherwise")
    parser.add_argument("--measure", nargs=2, metavar=("DTYPE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        dtype, vectors_file = options.measure
        rounds = measure(options.folder, dtype, options.documents, Path(vectors_file))
        for _ in sys.stdin:
            print(json.dumps(next(rounds)), flush=True)
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        "| dtype | load, s | peak of loading, MiB | model, MiB | documents, tokens/s | times as fast | image, s "
        "| query, s | cosine |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(options.folder or Path(scratch), options.size, torch.bfloat16) / "embedding"
        print_rows(folder, options.dtypes, options.documents, Path(scratch))


if __name__ == "__main__":
    main()

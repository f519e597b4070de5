"""Every dtype on the CPU: loading, memory, and the speed of documents, of an image and of a short query.

    uv run python -m benchmarks.dtypes [--size small] [--dtypes float32 bfloat16 int8 fp8] [--documents 16]

The model has random weights, stored in bfloat16 as the published ones are. Each dtype runs in a process of its own,
whose peak of memory after loading is that of loading. `--size 2B` writes 8 GB.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from benchmarks.inputs import draw_image, random_words
from benchmarks.many import resident_mib
from benchmarks.models import SIZES, write

WORDS_PER_DOCUMENT = 250
IMAGE_SIZE = (640, 448)
"""Width and height of the image: 280 tokens."""
QUERY = "who painted the mona lisa in florence"
ROUNDS = 3


def measure(folder: Path, dtype: str, num_documents: int, vectors_file: Path) -> dict[str, float]:
    """Load a model in this process and measure it.

    Args:
        folder: The checkpoint.
        dtype: The dtype.
        num_documents: Number of texts in a call.
        vectors_file: Where the vectors are written, `.npy`.

    Returns:
        Figures by name: times in seconds, memory in MiB.
    """
    from qwen3vl import Embedder

    before = resident_mib()
    began = time.perf_counter()
    embedder = Embedder(folder, device="cpu", dtype=dtype, vision_cache=0)
    load_s = time.perf_counter() - began
    peak, after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, resident_mib()
    random = Random(5)
    documents = [random_words(random, WORDS_PER_DOCUMENT) for _ in range(num_documents)]
    image = {"image": draw_image(vectors_file.parent, random, *IMAGE_SIZE)}
    np.save(vectors_file, embedder.embed([*documents, image, QUERY]))
    tokens_before = embedder.engine.stats.tokens_computed
    embedder.embed(documents)
    tokens = embedder.engine.stats.tokens_computed - tokens_before
    return {
        "load_s": load_s,
        "load_peak_mib": peak - before,
        "model_mib": after - before,
        "tokens_per_s": tokens / fastest(lambda: embedder.embed(documents)),
        "image_s": fastest(lambda: embedder.embed(image)),
        "query_s": fastest(lambda: embedder.embed(QUERY)),
    }


def fastest(work: Callable[[], Any]) -> float:
    """Return the shortest of `ROUNDS` times of a function, in seconds."""
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    """Print a row of the table for each dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8", "fp8"])
    parser.add_argument("--documents", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="where the model is, or is written; a temporary folder otherwise")
    parser.add_argument("--measure", nargs=2, metavar=("DTYPE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        dtype, vectors_file = options.measure
        print(json.dumps(measure(options.folder, dtype, options.documents, Path(vectors_file))))
        return
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(
        "| dtype | load, s | peak of loading, MiB | model, MiB | documents, tokens/s | image, s | query, s | cosine |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        folder = write(options.folder or Path(scratch), options.size, torch.bfloat16) / "embedding"
        exact = None
        for dtype in options.dtypes:
            vectors_file = Path(scratch) / f"{dtype}.npy"
            command = [sys.executable, "-m", "benchmarks.dtypes", "--folder", str(folder)]
            command += ["--documents", str(options.documents), "--measure", dtype, str(vectors_file)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            row = json.loads(output.splitlines()[-1])
            vectors = np.load(vectors_file)
            exact = vectors if exact is None else exact
            print(
                f"| {dtype} | {row['load_s']:.1f} | {row['load_peak_mib']:.0f} | {row['model_mib']:.0f} "
                f"| {row['tokens_per_s']:.0f} | {row['image_s']:.2f} | {row['query_s']:.3f} "
                f"| {(vectors * exact).sum(1).min():.5f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""10,000 mixed inputs in one call: memory per thousand inputs, completeness, and isolation of errors.

    uv run python -m benchmarks.many [--items 10000]

The model has the size of the golden checkpoints, so that the engine around it dominates. Inputs are texts, images that
come once, images that come again, and failing inputs. The vectors of a sample are compared with those of single calls.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.inputs import draw_image, random_words
from benchmarks.models import write
from qwen3vl import Embedder

PAGE_BYTES = resource.getpagesize()
"""Size of a page of memory, in bytes."""
SAMPLE_SIZE = 40
"""Number of vectors that are compared with those of single calls."""


def resident_mib(process: int | str = "self") -> int:
    """Return the memory of a process, in MiB."""
    return int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES >> 20


def peak_mib() -> int:
    """Return the largest memory that this process has had so far, in MiB.

    `ru_maxrss` is at least what the parent had when it started this process. Linux resets `VmHWM` then.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


def mixed_inputs(folder: Path, count: int) -> Iterator[Any]:
    """Yield a tenth images that come once, a tenth images that come again, a twentieth failures, and texts.

    Args:
        folder: Where images are written.
        count: Number of inputs.
    """
    random = Random(11)
    recurring = [draw_image(folder, random, 256, 192) for _ in range(20)]
    for number in range(count):
        kind = number % 20
        if kind in (1, 2):
            path = Path(draw_image(folder, random, 320, 256))
            yield {"image": path.read_bytes(), "text": f"picture {number}"}
            path.unlink()
        elif kind in (3, 4):
            yield {"image": random.choice(recurring)}
        elif kind == 5:
            yield {"image": folder / f"missing-{number}.png"} if number % 40 == 5 else ""
        else:
            yield random_words(random, random.randrange(3, 60))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        embedder = Embedder(write(Path(scratch), "golden") / "embedding", device="cpu", vision_cache=16 << 20)
        sample = set(Random(1).sample(range(options.items), SAMPLE_SIZE))
        sample_inputs: dict[int, Any] = {}
        sample_results: dict[int, Any] = {}

        def recorded_inputs() -> Iterator[Any]:
            for number, value in enumerate(mixed_inputs(Path(scratch), options.items)):
                if number in sample:
                    sample_inputs[number] = value
                yield value

        began = time.perf_counter()
        indices: list[int] = []
        failed: list[int] = []
        for index, result in embedder.stream(recorded_inputs()):
            indices.append(index)
            if isinstance(result, Exception):
                failed.append(index)
            if index in sample:
                sample_results[index] = result
            if len(indices) % 1000 == 0:
                elapsed_s = time.perf_counter() - began
                print(f"{len(indices):6,} done, {resident_mib():,} MiB, {elapsed_s:.0f} s", flush=True)
        largest_difference = max(
            float(np.abs(sample_results[index] - embedder.embed([sample_inputs[index]])[0]).max())
            for index in sample
            if not isinstance(sample_results[index], Exception)
        )
        assert sorted(indices) == list(range(options.items))  # noqa: S101 (the benchmark's purpose)
        assert sorted(failed) == list(range(5, options.items, 20))  # noqa: S101
        print(f"{len(failed):,} of {options.items:,} failed, as expected")
        print(f"largest difference of {len(sample)} vectors to those of single calls: {largest_difference:.0e}")
        print(embedder.engine.stats)


if __name__ == "__main__":
    main()

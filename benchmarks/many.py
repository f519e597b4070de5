"""10,000 mixed inputs in one call: memory by the thousand, that each is answered, and that only the bad ones fail.

    uv run python -m benchmarks.many [--items 10000]

The golden checkpoint's size, so that the loop around the model is what is seen.  Texts, pictures that never come again,
pictures that do, and inputs that fail; the vectors of a sample are compared with those of the inputs alone.
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

from benchmarks.models import write
from benchmarks.rivals import picture, words
from qwen3vl import Embedder

PAGE_BYTES = resource.getpagesize()


def resident() -> int:
    """MiB of this process in memory now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES >> 20


def inputs(folder: Path, count: int) -> Iterator[Any]:
    """A tenth new pictures, a tenth pictures seen before, a twentieth failures, the rest texts."""
    random = Random(11)
    known = [picture(folder, random, 256, 192) for _ in range(20)]
    for number in range(count):
        kind = number % 20
        if kind in (1, 2):
            path = Path(picture(folder, random, 320, 256))
            yield {"image": path.read_bytes(), "text": f"picture {number}"}
            path.unlink()
        elif kind in (3, 4):
            yield {"image": random.choice(known)}
        elif kind == 5:
            yield {"image": folder / f"missing-{number}.png"} if number % 40 == 5 else ""
        else:
            yield words(random, random.randrange(3, 60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        embedder = Embedder(write(Path(scratch), "golden") / "embedding", device="cpu", vision_cache=16 << 20)
        places: list[int] = []
        sample = set(Random(1).sample(range(options.items), 40))
        kept: dict[int, Any] = {}
        found: dict[int, Any] = {}

        def noted() -> Iterator[Any]:
            for number, value in enumerate(inputs(Path(scratch), options.items)):
                if number in sample:
                    kept[number] = value
                yield value

        began = time.perf_counter()
        failures: list[int] = []
        for index, result in embedder.stream(noted()):
            places.append(index)
            if isinstance(result, Exception):
                failures.append(index)
            if index in sample:
                found[index] = result
            if len(places) % 1000 == 0:
                print(f"{len(places):6,} done, {resident():,} MiB, {time.perf_counter() - began:.0f} s", flush=True)
        worst = max(
            float(np.abs(found[index] - embedder.embed([kept[index]])[0]).max())
            for index in sample
            if not isinstance(found[index], Exception)
        )
        assert sorted(places) == list(range(options.items))  # noqa: S101 (what this is for)
        assert sorted(failures) == list(range(5, options.items, 20))  # noqa: S101
        print(f"{len(failures):,} of {options.items:,} failed, those that had to")
        print(f"largest difference of {len(sample)} to the input alone: {worst:.0e}")
        print(embedder.engine.stats)


if __name__ == "__main__":
    main()

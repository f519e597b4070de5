"""What eight bits and bfloat16 lose, on models that can be had here: the tiny pair and the golden checkpoint's size.

    uv run python -m benchmarks.narrow

The tiny embedding model finds 500 drawn scenes by captions that it has not been trained on; the tiny reranker judges
captions of scenes and of near-misses.  The other model is random, which is harder on eight bits than trained weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.gpu_common import draw_pages
from benchmarks.models import write
from benchmarks.rivals import random_words
from qwen3vl import Embedder, Reranker
from qwen3vl.demo.scenes import near_miss
from qwen3vl.model.hub import TINY_MAX_PIXELS
from tools.tiny.data import held_out_scenes
from tools.tiny.judge import recall

DTYPES = ("float32", "bfloat16", "int8", "fp8")


def rows(folder: Path) -> Iterator[str]:
    random = Random(4)
    scenes = held_out_scenes(99, 500)
    captions = [scene.caption(0) for scene in scenes]
    pictures = [scene.draw(random) for scene in scenes]
    pairs = [(scene, scene.caption(1), near_miss(scene, random).caption(1)) for scene in scenes[:100]]
    model = write(folder, "golden") / "embedding"
    mixed: list[Any] = [
        *(random_words(random, 60) for _ in range(30)),
        *({"image": page} for page in draw_pages(folder, 2)),
    ]
    exact: dict[str, Any] = {}
    for dtype in DTYPES:
        embedder = Embedder("tiny", device="cpu", dtype=dtype, max_pixels=TINY_MAX_PIXELS)
        reranker = Reranker("tiny", device="cpu", dtype=dtype, max_pixels=TINY_MAX_PIXELS)
        told, seen = embedder.embed(captions), embedder.embed(pictures)
        scores = np.array(
            [reranker.score({"image": scene.draw(Random(1))}, [right, wrong]) for scene, right, wrong in pairs]
        )
        others = Embedder(model, device="cpu", dtype=dtype).embed(mixed)
        found = {"told": told, "seen": seen, "scores": scores, "others": others}
        exact = exact or found
        near = [(found[name] * exact[name]).sum(1) for name in ("told", "seen")]
        random_near = (others * exact["others"]).sum(1)
        yield (
            f"| {dtype} | {recall(told @ seen.T, 1):.3f} | {min(each.min() for each in near):.5f} "
            f"| {(scores[:, 0] > scores[:, 1]).mean():.2f} | {np.abs(scores - exact['scores']).max():.3f} "
            f"| {random_near.min():.5f} |"
        )


def main() -> None:
    print(
        "| dtype | tiny: recall@1 | least cosine | match above near-miss | score, most | random model: least cosine |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for row in rows(Path(scratch)):
            print(row, flush=True)


if __name__ == "__main__":
    main()

"""What bfloat16 and 8-bit weights lose, on the tiny models and on a random model of the golden checkpoint's size.

    uv run python -m benchmarks.narrow

The tiny embedding model finds 500 drawn scenes by captions that it was not trained on; the tiny reranker judges
captions of scenes and of near-misses. The other model has random weights, which lose more by quantization than trained
ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from benchmarks.gpu_common import draw_pages
from benchmarks.inputs import random_words
from benchmarks.models import write
from qwen3vl import Embedder, Reranker
from qwen3vl.demo.scenes import near_miss
from qwen3vl.settings import TINY_MAX_PIXELS
from tools.tiny.data import held_out_scenes
from tools.tiny.evaluation import recall

DTYPES = ("float32", "bfloat16", "int8", "fp8")


def table_rows(folder: Path) -> Iterator[str]:
    """Measure every dtype against float32.

    Args:
        folder: Where the random model is written.

    Yields:
        A row of the table for each dtype.
    """
    random = Random(4)
    scenes = held_out_scenes(99, 500)
    captions = [scene.caption(0) for scene in scenes]
    images = [scene.draw(random) for scene in scenes]
    caption_pairs = [(scene, scene.caption(1), near_miss(scene, random).caption(1)) for scene in scenes[:100]]
    random_model = write(folder, "golden") / "embedding"
    mixed: list[Any] = [
        *(random_words(random, 60) for _ in range(30)),
        *({"image": page} for page in draw_pages(folder, 2)),
    ]
    exact: dict[str, Any] = {}
    for dtype in DTYPES:
        embedder = Embedder("tiny", device="cpu", dtype=dtype, max_pixels=TINY_MAX_PIXELS)
        reranker = Reranker("tiny", device="cpu", dtype=dtype, max_pixels=TINY_MAX_PIXELS)
        results = {
            "captions": embedder.embed(captions),
            "images": embedder.embed(images),
            "scores": np.array(
                [
                    reranker.score({"image": scene.draw(Random(1))}, [caption, near_miss_caption])
                    for scene, caption, near_miss_caption in caption_pairs
                ]
            ),
            "random model": Embedder(random_model, device="cpu", dtype=dtype).embed(mixed),
        }
        exact = exact or results
        cosines = {name: (results[name] * exact[name]).sum(1) for name in ("captions", "images", "random model")}
        scores = results["scores"]
        yield (
            f"| {dtype} | {recall(results['captions'] @ results['images'].T, 1):.3f} "
            f"| {min(cosines['captions'].min(), cosines['images'].min()):.5f} "
            f"| {(scores[:, 0] > scores[:, 1]).mean():.2f} | {np.abs(scores - exact['scores']).max():.3f} "
            f"| {cosines['random model'].min():.5f} |"
        )


def main() -> None:
    """Print the table."""
    print(
        "| dtype | tiny: recall@1 | least cosine | match above near-miss | largest score error "
        "| random model: least cosine |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as scratch:
        for row in table_rows(Path(scratch)):
            print(row, flush=True)


if __name__ == "__main__":
    main()

"""Image retrieval: the images whose vectors are nearest to that of a description.

    python examples/image_retrieval.py --model Qwen/Qwen3-VL-Embedding-2B

The images are drawn here, and the queries are their captions. With a network, take others:
`datasets.load_dataset("yerevann/coco-karpathy", split="test[:100]")` has the addresses of photos under `url`, which can
be embedded as they are, as `{"image": url}`, and captions under `sentences`.
"""

from __future__ import annotations

import argparse
from random import Random

from qwen3vl import Embedder
from qwen3vl.demo.scenes import random_scene

INSTRUCTION = "Find images that match the description."
NUM_QUERIES = 40


def main(arguments: list[str] | None = None) -> None:
    """Find the image for each caption; print how often it is the first or among the first five."""
    parser = argparse.ArgumentParser(description="Image retrieval.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    options = parser.parse_args(arguments)

    random = Random(5)
    scenes = list({scene.key: scene for scene in (random_scene(random) for _ in range(100))}.values())
    images = [{"image": scene.draw(random)} for scene in scenes]
    queries = [scene.caption() for scene in scenes[:NUM_QUERIES]]  # queries[i] describes images[i]

    with Embedder(options.model) as embedder:
        cosines = embedder.embed(queries, instruction=INSTRUCTION) @ embedder.embed(images).T
    ranks = (cosines > cosines.diagonal()[:, None]).sum(axis=1) + 1  # of the right image

    for query, row, rank in list(zip(queries, cosines, ranks, strict=True))[:2]:
        print(f"query: {query}\n  the right image has rank {rank}")
        for index in (-row).argsort()[:3]:
            print(f"  {row[index]:.2f}  image {index}, {scenes[index].caption()}")
    print(f"\n{len(queries)} queries, {len(images)} images: ", end="")
    print(f"recall@1 {(ranks <= 1).mean():.2f}, recall@5 {(ranks <= 5).mean():.2f}, by chance {1 / len(images):.2f}")


if __name__ == "__main__":
    main()

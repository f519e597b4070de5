"""Text retrieval: the passages whose vectors are nearest to that of a query.

    python examples/text_retrieval.py --model Qwen/Qwen3-VL-Embedding-2B

The passages here are captions of drawn scenes, and a query words one of them differently. With a network, take others:
`datasets.load_dataset("microsoft/ms_marco", "v1.1", split="validation[:100]")` has queries, and passages of which
`is_selected` marks the relevant ones.
"""

from __future__ import annotations

import argparse
from random import Random

from qwen3vl import Embedder
from qwen3vl.demo.scenes import Scene, random_scene

INSTRUCTION = "Retrieve relevant passages."
NUM_QUERIES = 40


def main(arguments: list[str] | None = None) -> None:
    """Find the passage for each query; print how often it is the first or among the first five."""
    parser = argparse.ArgumentParser(description="Text retrieval.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    options = parser.parse_args(arguments)

    random = Random(4)
    scenes = list({scene.key: scene for scene in (random_scene(random) for _ in range(120))}.values())
    passages = [scene.caption() for scene in scenes]
    # queries[i] describes what passages[i] does, in another order and in other words.
    queries = [Scene(scene.things[::-1]).caption(style=2) for scene in scenes[:NUM_QUERIES]]

    with Embedder(options.model) as embedder:
        cosines = embedder.embed(queries, instruction=INSTRUCTION) @ embedder.embed(passages).T
    ranks = (cosines > cosines.diagonal()[:, None]).sum(axis=1) + 1  # of the right passage

    for query, row, rank in list(zip(queries, cosines, ranks, strict=True))[:2]:
        print(f"query: {query}\n  the right passage has rank {rank}")
        for index in (-row).argsort()[:3]:
            print(f"  {row[index]:.2f}  {passages[index]}")
    print(f"\n{len(queries)} queries, {len(passages)} passages: ", end="")
    print(f"recall@1 {(ranks <= 1).mean():.2f}, recall@5 {(ranks <= 5).mean():.2f}, by chance {1 / len(passages):.2f}")


if __name__ == "__main__":
    main()

"""Reranking: a search by vectors finds candidates, and a reranker puts them in order, by what they say and show.

    python examples/reranking.py --dimensions 256 \
        --model Qwen/Qwen3-VL-Embedding-2B --reranker Qwen/Qwen3-VL-Reranker-2B

The documents are drawn scenes that differ in details, as images and as captions. The vectors are cut to a few values,
which makes the search coarse. With a network, take the data sets of text_retrieval.py and image_retrieval.py.
"""

from __future__ import annotations

import argparse
from random import Random
from typing import Any

import numpy as np

from qwen3vl import Embedder, Reranker
from qwen3vl.demo.scenes import near_miss, random_scene

NUM_CANDIDATES = 10
NOT_FOUND = 10**9


def main(arguments: list[str] | None = None) -> None:
    """Search and rerank; print recall and MRR before and after."""
    parser = argparse.ArgumentParser(description="Reranking, before and after.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    parser.add_argument("--reranker", default="tiny", help="a reranker: a hub id, a folder, or a server's URL")
    parser.add_argument("--dimensions", type=int, default=8, help="values of a vector; 64 or more for real models")
    options = parser.parse_args(arguments)

    random = Random(7)
    asked = [random_scene(random) for _ in range(20)]
    others = [near_miss(scene, random) for scene in asked for _ in range(4)]
    scenes = list({scene.key: scene for scene in asked + others}.values())
    right = [[scene.key for scene in scenes].index(scene.key) for scene in asked]
    captions: list[Any] = [{"text": scene.caption()} for scene in scenes]
    images: list[Any] = [{"image": scene.draw(random)} for scene in scenes]

    print(f"{len(right)} queries, {len(scenes)} documents, {NUM_CANDIDATES} of them reranked\n")
    print(f"{'search':16}{'order':12}recall@1  recall@5   MRR")
    with Embedder(options.model, dimensions=options.dimensions) as embedder, Reranker(options.reranker) as reranker:
        for task, inputs, documents in [("text to image", captions, images), ("image to text", images, captions)]:
            queries = [inputs[index] for index in right]
            cosines = embedder.embed(queries) @ embedder.embed(documents).T
            found = (-cosines).argsort(axis=1)[:, :NUM_CANDIDATES].tolist()
            reranked = []
            for query, candidates in zip(queries, found, strict=True):
                ranking = reranker.rank(query, [documents[index] for index in candidates])
                reranked.append([candidates[document.index] for document in ranking])
            for order, results in [("by vectors", found), ("reranked", reranked)]:
                ranks = np.array([rank_of(index, result) for index, result in zip(right, results, strict=True)])
                print(f"{task:16}{order:12}", end="")
                print(f"{(ranks <= 1).mean():8.2f}{(ranks <= 5).mean():10.2f}{(1 / ranks).mean():6.2f}")


def rank_of(index: int, result: list[int]) -> int:
    """Return the rank of a document in a search's result, from 1."""
    return result.index(index) + 1 if index in result else NOT_FOUND


if __name__ == "__main__":
    main()

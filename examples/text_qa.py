"""Question answering over texts: the passage whose vector is nearest to that of a question has the answer.

    python examples/text_qa.py --model Qwen/Qwen3-VL-Embedding-2B

The passages here say where a drawn thing is. With a network, take others:
`datasets.load_dataset("rajpurkar/squad", split="validation[:100]")` has questions, and the passages that answer them
under `context`, each for several questions.
"""

from __future__ import annotations

import argparse
from random import Random

from qwen3vl import Embedder
from qwen3vl.demo.scenes import COLOURS, SHAPES, Thing

INSTRUCTION = "Retrieve passages that answer the question."


def main(arguments: list[str] | None = None) -> None:
    """Find the passage for each question; print how often it is the first or among the first five."""
    parser = argparse.ArgumentParser(description="Question answering over texts.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    options = parser.parse_args(arguments)

    random = Random(3)
    things = [Thing(colour, shape, random.randrange(9)) for colour in COLOURS for shape in SHAPES]
    random.shuffle(things)
    passages = [thing.describe() for thing in things]
    questions = [f"Where is the {thing.colour} {thing.shape}?" for thing in things]  # passages[i] answers questions[i]

    with Embedder(options.model) as embedder:
        cosines = embedder.embed(questions, instruction=INSTRUCTION) @ embedder.embed(passages).T
    ranks = (cosines > cosines.diagonal()[:, None]).sum(axis=1) + 1  # of the right passage

    print(f"{'question':36}{'first passage':44}rank of the right one")
    for question, row, rank in list(zip(questions, cosines, ranks, strict=True))[:5]:
        print(f"{question:36}{passages[row.argmax()]:44}{rank:21}")
    print(f"\n{len(questions)} questions, {len(passages)} passages: ", end="")
    print(f"recall@1 {(ranks <= 1).mean():.2f}, recall@5 {(ranks <= 5).mean():.2f}, by chance {1 / len(passages):.2f}")


if __name__ == "__main__":
    main()

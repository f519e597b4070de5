"""Text classification without training: a text belongs to the label whose vector is the nearest.

    python examples/text_classification.py --model Qwen/Qwen3-VL-Embedding-2B

The texts here are captions of drawn scenes, and the labels are the colours that they name. With a network, take others:
`datasets.load_dataset("fancyzhx/ag_news", split="test[:200]")` has news with the labels World, Sports, Business and
Sci/Tech, and the instruction could be "Classify the topic of the news."
"""

from __future__ import annotations

import argparse
from random import Random

from qwen3vl import Embedder
from qwen3vl.demo.scenes import COLOURS, random_thing

INSTRUCTION = "Classify the caption by its colour."
LABELS = list(COLOURS)


def main(arguments: list[str] | None = None) -> None:
    """Classify captions and print the accuracy."""
    parser = argparse.ArgumentParser(description="Text classification without training.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    options = parser.parse_args(arguments)

    random = Random(1)
    things = [random_thing(random) for _ in range(80)]
    texts = [thing.describe(style=random.randrange(3)) for thing in things]

    with Embedder(options.model) as embedder:
        cosines = embedder.embed(texts, instruction=INSTRUCTION) @ embedder.embed(LABELS).T
    predicted = [LABELS[index] for index in cosines.argmax(axis=1)]

    print(f"{'text':44}{'predicted':12}cosine")
    for text, label, row in list(zip(texts, predicted, cosines, strict=True))[:5]:
        print(f"{text:44}{label:12}{row.max():6.2f}")
    accuracy = sum(label == thing.colour for label, thing in zip(predicted, things, strict=True)) / len(things)
    print(f"\n{len(texts)} texts, {len(LABELS)} labels: accuracy {accuracy:.2f}, by chance {1 / len(LABELS):.2f}")


if __name__ == "__main__":
    main()

"""Image classification without training: an image belongs to the label whose vector is the nearest.

    python examples/image_classification.py --model Qwen/Qwen3-VL-Embedding-2B

The images are drawn here, and the labels are the shapes that they show. With a network, take others:
`datasets.load_dataset("uoft-cs/cifar10", split="test[:200]")` has pictures of ten kinds of animals and vehicles.
"""

from __future__ import annotations

import argparse
from random import Random

from qwen3vl import Embedder
from qwen3vl.demo.scenes import SHAPES, Scene, random_thing

INSTRUCTION = "Classify the object in the image."
LABELS = [f"a {shape}" for shape in SHAPES]


def main(arguments: list[str] | None = None) -> None:
    """Classify images and print the accuracy."""
    parser = argparse.ArgumentParser(description="Image classification without training.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    options = parser.parse_args(arguments)

    random = Random(2)
    things = [random_thing(random) for _ in range(60)]
    images = [Scene((thing,), background=random.randrange(3)).draw(random) for thing in things]

    with Embedder(options.model) as embedder:
        # An image may also be a path, a URL or bytes: {"image": "photo.jpg"}.
        image_vectors = embedder.embed([{"image": image} for image in images], instruction=INSTRUCTION)
        cosines = image_vectors @ embedder.embed(LABELS).T
    predicted = [LABELS[index] for index in cosines.argmax(axis=1)]

    print(f"{'image of':44}{'predicted':12}cosine")
    for thing, label, row in list(zip(things, predicted, cosines, strict=True))[:5]:
        print(f"{thing.describe():44}{label:12}{row.max():6.2f}")
    right = sum(label == f"a {thing.shape}" for label, thing in zip(predicted, things, strict=True))
    print(f"\n{len(images)} images, {len(LABELS)} labels: ", end="")
    print(f"accuracy {right / len(images):.2f}, by chance {1 / len(LABELS):.2f}")


if __name__ == "__main__":
    main()

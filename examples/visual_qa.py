"""Visual question answering: the candidate whose vector is nearest to that of an image and a question is the answer.

    python examples/visual_qa.py --model Qwen/Qwen3-VL-Embedding-2B

The images are drawn here, with one thing each, because the tiny model sees the image and hardly reads the question.
With a network, take others: `datasets.load_dataset("lmms-lab/VQAv2", split="validation[:200]")` has images and
questions; the candidates are its most frequent answers.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from random import Random
from typing import Any

from qwen3vl import Embedder
from qwen3vl.demo.scenes import COLOURS, POSITIONS, SHAPES, Scene, Thing, random_thing

INSTRUCTION = "Find the answer to the question about the image."


@dataclass(frozen=True)
class Question:
    """A question about an image, its possible answers, and the index of the right one."""

    image: Any
    text: str
    candidates: list[str]
    answer: int


def write_questions(random: Random) -> list[Question]:
    """Draw images and ask for the colour, the shape or the position of what they show."""
    questions = []
    for number in range(60):
        thing = random_thing(random)
        image = Scene((thing,), background=random.randrange(3)).draw(random)
        colours = [Thing(colour, thing.shape, thing.position).describe() for colour in COLOURS]
        shapes = [Thing(thing.colour, shape, thing.position).describe() for shape in SHAPES]
        positions = [Thing(thing.colour, thing.shape, position).describe() for position in range(len(POSITIONS))]
        text, candidates = [
            (f"What colour is the {thing.shape}?", colours),
            (f"What {thing.colour} shape is it?", shapes),
            (f"Where is the {thing.colour} {thing.shape}?", positions),
        ][number % 3]
        questions.append(Question(image, text, candidates, candidates.index(thing.describe())))
    return questions


def main(arguments: list[str] | None = None) -> None:
    """Answer each question and print the accuracy."""
    parser = argparse.ArgumentParser(description="Visual question answering.")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    options = parser.parse_args(arguments)

    questions = write_questions(Random(6))
    inputs = [{"image": question.image, "text": question.text} for question in questions]
    with Embedder(options.model) as embedder:
        vectors = embedder.embed(inputs, instruction=INSTRUCTION)
        chosen = [
            int((embedder.embed(question.candidates) @ vector).argmax())
            for question, vector in zip(questions, vectors, strict=True)
        ]

    print(f"{'question':40}{'chosen answer':44}right")
    for question, index in list(zip(questions, chosen, strict=True))[:6]:
        print(f"{question.text:40}{question.candidates[index]:44}{'yes' if index == question.answer else 'no'}")
    accuracy = sum(index == question.answer for question, index in zip(questions, chosen, strict=True)) / len(questions)
    chance = sum(1 / len(question.candidates) for question in questions) / len(questions)
    print(f"\n{len(questions)} questions: accuracy {accuracy:.2f}, by chance {chance:.2f}")


if __name__ == "__main__":
    main()

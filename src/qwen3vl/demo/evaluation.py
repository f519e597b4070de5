"""The demo's searches: what is asked, what is right, and how often it comes first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from qwen3vl.demo.library import Library
from qwen3vl.demo.scenes import Scene
from qwen3vl.documents import Document, Kind
from qwen3vl.retriever import Retriever
from qwen3vl.stores import Hit

QUERIES = 20
"""Queries of each task, where the library has as many."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query, the kind of document that answers it, and how the right one is known."""

    task: str
    query: dict[str, Any]
    kind: Kind
    right: Callable[[Document], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits for a question without and with reranking; ranks from 1, None where the right one is missing."""

    question: Question
    found: list[Hit]
    reranked: list[Hit]

    def rank(self, *, reranked: bool) -> int | None:
        hits = self.reranked if reranked else self.found
        return next((place for place, hit in enumerate(hits, start=1) if self.question.right(hit.document)), None)


def questions(library: Library, seed: int = 5) -> Iterator[Question]:
    """Text to pictures, clips, pages and notes; a picture to its other drawing; a picture and words to a scene."""
    random = Random(seed)

    def some(of: dict[str, Any], fits: Callable[[Any], bool] = lambda _: True) -> list[tuple[str, Any]]:
        fitting = [entry for entry in of.items() if fits(entry[1])]
        return random.sample(fitting, min(QUERIES, len(fitting)))

    for path, scene in some(library.pictures):
        yield Question("text to picture", {"text": scene.caption(random.randrange(3))}, "picture", _source(path))
    for path, clip in some(library.clips):
        yield Question("text to clip", {"text": clip.caption(random.randrange(2))}, "clip", _source(path))
    for name, scene in some(library.pages):
        yield Question("text to page", {"text": scene.caption(random.randrange(3))}, "page", _image(name))
    for path, scene in some(library.pictures):
        drawn = Scene(scene.things, (scene.background + 1) % 3).draw(random)
        yield Question("picture to picture", {"image": drawn}, "picture", _source(path))
    for path, scene in some(library.pictures, lambda scene: len(scene.things) > 1):
        shown = Scene(scene.things[:-1], random.randrange(3)).draw(random)
        words = Scene(scene.things[-1:]).caption(random.randrange(3))
        yield Question("picture and text to picture", {"image": shown, "text": words}, "picture", _source(path))
    for text, scene in some(library.notes):
        yield Question("picture to note", {"image": scene.draw(random)}, "text", _text(text))


def ask(question: Question, plain: Retriever, reranking: Retriever, limit: int) -> Answer:
    return Answer(
        question,
        plain.search(question.query, limit, where={"kind": question.kind}),
        reranking.search(question.query, limit, where={"kind": question.kind}),
    )


def _source(path: str) -> Callable[[Document], bool]:
    return lambda document: document.source == path


def _image(name: str) -> Callable[[Document], bool]:
    return lambda document: document.image == name


def _text(text: str) -> Callable[[Document], bool]:
    return lambda document: text in document.text

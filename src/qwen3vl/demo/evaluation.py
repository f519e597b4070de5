"""The demo's evaluation: questions about the library, their answers, and recall."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from qwen3vl.demo.library import Library
from qwen3vl.demo.scenes import Scene
from qwen3vl.documents import Document, Kind
from qwen3vl.retriever import Retriever
from qwen3vl.stores import Hit

MAX_QUESTIONS = 20
"""Questions of each task, where the library has as many."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question:
    """A query with a known answer.

    Attributes:
        task: What is searched by what, such as `"text to picture"`.
        query: The query, as `Retriever.search` accepts it.
        kind: The kind of documents that are searched.
        is_match: Returns whether a document is the right one.
    """

    task: str
    query: dict[str, Any]
    kind: Kind
    is_match: Callable[[Document], bool]


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits for a question.

    Attributes:
        question: The question.
        hits: The hits by vectors, best first.
        reranked_hits: The hits after reranking, best first.
    """

    question: Question
    hits: list[Hit]
    reranked_hits: list[Hit]

    def rank(self, *, reranked: bool) -> int | None:
        """Return the rank of the right document.

        Args:
            reranked: Whether the rank after reranking is meant, or the rank by vectors.

        Returns:
            The rank, from 1; None if the right document is not among the hits.
        """
        hits = self.reranked_hits if reranked else self.hits
        matches = (rank for rank, hit in enumerate(hits, start=1) if self.question.is_match(hit.document))
        return next(matches, None)


def write_questions(library: Library, seed: int = 5) -> Iterator[Question]:
    """Write questions of six tasks about random parts of a library.

    A text searches for an image, a video or a page; an image searches for another drawing of the same scene, or for the
    note that describes it; an image and a text together search for a scene that contains the things of both.

    Args:
        library: The library that is searched.
        seed: Seed of the choice. Equal seeds give equal questions.

    Yields:
        At most `MAX_QUESTIONS` questions of each task.
    """
    random = Random(seed)

    def sample(entries: Mapping[str, T], accepts: Callable[[T], bool] = lambda _: True) -> list[tuple[str, T]]:
        candidates = [entry for entry in entries.items() if accepts(entry[1])]
        return random.sample(candidates, min(MAX_QUESTIONS, len(candidates)))

    for path, scene in sample(library.images):
        yield Question("text to picture", {"text": scene.caption(random.randrange(3))}, "picture", _has_source(path))
    for path, clip in sample(library.clips):
        yield Question("text to clip", {"text": clip.caption(random.randrange(2))}, "clip", _has_source(path))
    for name, scene in sample(library.pages):
        yield Question("text to page", {"text": scene.caption(random.randrange(3))}, "page", _has_image(name))
    for path, scene in sample(library.images):
        image = Scene(scene.things, (scene.background + 1) % 3).draw(random)
        yield Question("picture to picture", {"image": image}, "picture", _has_source(path))
    for path, scene in sample(library.images, lambda scene: len(scene.things) > 1):
        image = Scene(scene.things[:-1], random.randrange(3)).draw(random)
        text = Scene(scene.things[-1:]).caption(random.randrange(3))
        yield Question("picture and text to picture", {"image": image, "text": text}, "picture", _has_source(path))
    for text, scene in sample(library.notes):
        yield Question("picture to note", {"image": scene.draw(random)}, "text", _has_text(text))


def search_question(question: Question, by_vectors: Retriever, reranking: Retriever, limit: int) -> Answer:
    """Search for a question's answer without and with reranking.

    Args:
        question: The question.
        by_vectors: A retriever without a reranker.
        reranking: A retriever with a reranker.
        limit: How many hits to ask for.

    Returns:
        The hits of both.
    """
    where = {"kind": question.kind}
    return Answer(
        question,
        by_vectors.search(question.query, limit, where=where),
        reranking.search(question.query, limit, where=where),
    )


def recall_by_task(answers: Sequence[Answer]) -> dict[str, dict[str, float]]:
    """Compute how often the right document is among the first hits.

    Args:
        answers: Answers of any tasks.

    Returns:
        By task: the number of queries, recall@1 and recall@5 by vectors, and recall@1 after reranking.
    """
    tasks: dict[str, list[Answer]] = {}
    for answer in answers:
        tasks.setdefault(answer.question.task, []).append(answer)
    return {
        task: {
            "queries": len(group),
            "recall@1": _recall(group, 1, reranked=False),
            "recall@5": _recall(group, 5, reranked=False),
            "reranked recall@1": _recall(group, 1, reranked=True),
        }
        for task, group in tasks.items()
    }


def _recall(answers: Sequence[Answer], k: int, *, reranked: bool) -> float:
    ranks = [answer.rank(reranked=reranked) for answer in answers]
    return round(sum(rank is not None and rank <= k for rank in ranks) / len(ranks), 3)


def _has_source(path: str) -> Callable[[Document], bool]:
    return lambda document: document.source == path


def _has_image(name: str) -> Callable[[Document], bool]:
    return lambda document: document.image == name


def _has_text(text: str) -> Callable[[Document], bool]:
    return lambda document: text in document.text

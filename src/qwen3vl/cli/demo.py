"""`qwen3vl demo`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from qwen3vl.cli import EXIT_FAILED, print_json
from qwen3vl.cli.page import Section, write_page
from qwen3vl.demo.evaluation import Answer, ask, questions
from qwen3vl.demo.library import write_library
from qwen3vl.embedder import Embedder
from qwen3vl.ingestion import ingest
from qwen3vl.loaders import Loader
from qwen3vl.reranker import Reranker
from qwen3vl.retriever import Retriever
from qwen3vl.stores import open_store

SHOWN = 3
"""Queries of each task on the page."""
LIMIT = 10
NOTE = (
    "EmbedResult by “qwen3vl demo” with the tiny pair: two models of a few megabytes, of the same architecture as the real "
    "ones, trained on drawn scenes. They know eight colours, six shapes, nine places and four directions, and nothing "
    "else. The right hit has a green frame; hits are in the order that the reranker gives them."
)


def run(options: argparse.Namespace, console: Console) -> int:
    began = time.monotonic()
    folder = Path(options.out).resolve()
    console.print(f"drawing a library of pictures, slides, clips and notes in {folder / 'library'}", markup=False)
    library = write_library(folder / "library")
    embedder, reranker = Embedder("tiny"), Reranker("tiny")
    store = open_store(str(folder / "store"))
    try:
        report = ingest(
            Loader().load([library.folder]),
            embedder,
            store,
            sync=lambda source: source.startswith(f"{library.folder}/"),
        )
        console.print(f"indexed {report.seen} documents: {report.added} added, {report.unchanged} unchanged")
        indexed = time.monotonic()
        plain = Retriever(embedder, store)
        judging = Retriever(embedder, store, reranker, candidates=LIMIT)
        asked = list(questions(library))
        shown = track(asked, "searching", console=console, transient=True)
        answers = [ask(question, plain, judging, LIMIT) for question in shown]
    finally:
        store.close()
    page = folder / "demo.html"
    write_page(page, "qwen3vl demo", _sections(answers), NOTE)
    seconds = {"index": round(indexed - began, 1), "search": round(time.monotonic() - indexed, 1)}
    tasks = {task: _figures([answer for answer in answers if answer.question.task == task]) for task in _tasks(answers)}
    if options.json:
        print_json({"tasks": tasks, "failed": report.failed, "seconds": seconds, "page": str(page)})
    else:
        console.print(_table(tasks))
        console.print(f"{sum(seconds.values()):.0f} seconds; page written: {page}", markup=False)
    return EXIT_FAILED if report.failed else 0


def _tasks(answers: Sequence[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.question.task for answer in answers))


def _figures(answers: Sequence[Answer]) -> dict[str, float]:
    """Recall of a task, without and with reranking."""

    def recall(most: int, *, reranked: bool) -> float:
        ranks = [answer.rank(reranked=reranked) for answer in answers]
        return round(sum(rank is not None and rank <= most for rank in ranks) / len(ranks), 3)

    return {
        "queries": len(answers),
        "recall@1": recall(1, reranked=False),
        "recall@5": recall(5, reranked=False),
        "reranked recall@1": recall(1, reranked=True),
    }


def _sections(answers: Sequence[Answer]) -> list[Section]:
    sections = []
    for task in _tasks(answers):
        for answer in [answer for answer in answers if answer.question.task == task][:SHOWN]:
            wanted = next((hit.id for hit in answer.reranked if answer.question.right(hit.document)), None)
            before, after = (answer.rank(reranked=reranked) or "none" for reranked in (False, True))
            note = f"{task}: right one at rank {before} by vectors, {after} after reranking"
            sections.append(Section(answer.question.query, answer.reranked[:6], note, wanted))
    return sections


def _table(tasks: dict[str, dict[str, float]]) -> Table:
    table = Table(title="How often the right one is found", title_justify="left")
    for name in ("task", "queries", "recall@1", "recall@5", "reranked recall@1"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, figures in tasks.items():
        cells = [f"{value:g}" if name == "queries" else f"{value:.2f}" for name, value in figures.items()]
        table.add_row(task, *cells)
    return table

"""`qwen3vl demo`: draw a library, index it, search it, and measure how often the right document is found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from qwen3vl.cli.extensions import load_command
from qwen3vl.cli.output import EXIT_FAILED, EXIT_OK, print_json
from qwen3vl.cli.page import QueryResult, write_page
from qwen3vl.demo.evaluation import Answer, recall_by_task, search_question, write_questions
from qwen3vl.demo.library import write_library
from qwen3vl.embedder import Embedder
from qwen3vl.ingestion import ingest
from qwen3vl.loaders import Loader
from qwen3vl.reranker import Reranker
from qwen3vl.retriever import Retriever
from qwen3vl.stores import open_store

LIMIT = 10
"""How many hits each question asks for."""
QUESTIONS_SHOWN = 3
"""How many questions of each task are on the page."""
HITS_SHOWN = 6
"""How many hits of each question are on the page."""
NOTE = (
    "Written by “qwen3vl demo” with the tiny models, which have a few megabytes and the architecture of the real ones, "
    "and are trained on drawn scenes. They recognise eight colours, six shapes, nine positions and four directions, "
    "and nothing else. The right hit has a green frame; hits are in the order that the reranker gives them."
)


def run_demo(out: str, *, serve_at: int | None, console: Console, as_json: bool) -> int:
    """Run the demo and print the recall of each task; then serve the library, if that is wanted.

    Args:
        out: The folder that the library, the store and the page are written to.
        serve_at: Port at which the library is served with its search page; None to end instead.
        console: Where messages, progress and the table go.
        as_json: Whether the result is printed as JSON.

    Returns:
        The exit code: 1 if a document failed; that of the server if it failed.

    Raises:
        typer.BadParameter: The library is to be served, and the server is not installed.
    """
    serve = None if serve_at is None else load_command("serve")
    start = time.monotonic()
    folder = Path(out).resolve()
    console.print(f"drawing a library of images, slides, videos and notes in {folder / 'library'}", markup=False)
    library = write_library(folder / "library")
    embedder, reranker = Embedder("tiny"), Reranker("tiny")
    store = open_store(str(folder / "store"))
    try:
        report = ingest(
            Loader().load([library.folder]),
            embedder,
            store,
            sync=lambda source: Path(source).is_relative_to(library.folder),
        )
        console.print(f"indexed {report.seen} documents: {report.added} added, {report.unchanged} unchanged")
        indexed = time.monotonic()
        by_vectors = Retriever(embedder, store)
        reranking = Retriever(embedder, store, reranker, candidates=LIMIT)
        questions = track(list(write_questions(library)), "searching", console=console, transient=True)
        answers = [search_question(question, by_vectors, reranking, LIMIT) for question in questions]
    finally:
        store.close()
    page = folder / "demo.html"
    write_page(page, "qwen3vl demo", _query_results(answers), NOTE)
    seconds = {"index": round(indexed - start, 1), "search": round(time.monotonic() - indexed, 1)}
    tasks = recall_by_task(answers)
    if as_json:
        print_json({"tasks": tasks, "failed": report.failed, "seconds": seconds, "page": str(page)})
    else:
        console.print(_table(tasks))
        console.print(f"{sum(seconds.values()):.0f} seconds; page written: {page}", markup=False)
    code = EXIT_FAILED if report.failed else EXIT_OK
    if serve is not None:
        options = {"store": folder / "store", "folder": library.folder, "reranker": "tiny", "port": serve_at}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        code = serve.main(arguments, standalone_mode=False) or code
    return code


def _query_results(answers: Sequence[Answer]) -> list[QueryResult]:
    """Return the first answers of each task as sections of the page."""
    results = []
    num_shown: dict[str, int] = {}
    for answer in answers:
        task = answer.question.task
        num_shown[task] = num_shown.get(task, 0) + 1
        if num_shown[task] > QUESTIONS_SHOWN:
            continue
        match_id = next((hit.id for hit in answer.reranked_hits if answer.question.is_match(hit.document)), None)
        before, after = (answer.rank(reranked=reranked) or "none" for reranked in (False, True))
        note = f"{task}: the right one is at rank {before} by vectors, {after} after reranking"
        results.append(QueryResult(answer.question.query, answer.reranked_hits[:HITS_SHOWN], note, match_id))
    return results


def _table(tasks: dict[str, dict[str, float]]) -> Table:
    table = Table(title="How often the right document is found", title_justify="left")
    for name in ("task", "queries", "recall@1", "recall@5", "reranked recall@1"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, metrics in tasks.items():
        cells = [f"{value:g}" if name == "queries" else f"{value:.2f}" for name, value in metrics.items()]
        table.add_row(task, *cells)
    return table

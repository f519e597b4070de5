"""`qwen3vl index`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from qwen3vl.cli import EXIT_FAILED, print_json
from qwen3vl.cli.models import open_embedder
from qwen3vl.ingestion import Report, Sync, ingest
from qwen3vl.loaders import Loader
from qwen3vl.stores import open_store, parse_location

SHOWN = 20
"""Failures that the table lists; all are in --json."""


def run(options: argparse.Namespace, console: Console) -> int:
    store = open_store(options.store, options.collection)
    try:
        settings = {} if options.revision is None else {"revision": options.revision}
        if options.dimensions is not None:
            settings["dimensions"] = options.dimensions
        embedder = open_embedder(options, store.recipe(), **settings)
        folder = Path(parse_location(options.store)[1])
        exclude = (folder,) if folder.is_dir() else ()
        loader = Loader(segment_seconds=options.segment, fuse_page_text=options.fuse_page_text, exclude=exclude)
        began = time.monotonic()
        with _progress(console) as show:
            documents = loader.load(options.paths)
            sync: Sync = False if options.keep else _below(options.paths)
            report = ingest(documents, embedder, store, sync=sync, progress=show)
        summary = _summary(report, store.count(), time.monotonic() - began)
        if options.json:
            print_json(summary)
        else:
            console.print(_table(report, summary))
        return EXIT_FAILED if report.failed else 0
    finally:
        store.close()


def _below(paths: list[str]) -> Callable[[str], bool]:
    """Whether a stored source lies at or below one of the paths, so that its absence means that it is gone.

    A path that does not exist makes nothing stale: it may be a disk that is not there today.  Nor does a glob.
    """
    roots = [Path(path).expanduser().resolve() for path in paths if Path(path).expanduser().exists()]
    return lambda source: any(Path(source).is_relative_to(root) for root in roots)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Report], None]]:
    """A line that tells how far an ingestion is."""
    columns = (SpinnerColumn(), TextColumn("{task.fields[told]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("index", total=None, told="loading")

        def show(report: Report) -> None:
            told = f"{report.added} new, {report.unchanged} unchanged, {len(report.failed)} failed"
            bar.update(task, told=f"{report.seen} documents: {told}")

        yield show


def _summary(report: Report, stored: int, seconds: float) -> dict[str, object]:
    return {
        "added": report.added,
        "unchanged": report.unchanged,
        "replaced": report.replaced,
        "deleted": report.deleted,
        "failed": [{"source": name, "reason": reason} for name, reason in report.failed],
        "skipped": report.skipped,
        "stored": stored,
        "seconds": round(seconds, 2),
    }


def _table(report: Report, summary: dict[str, object]) -> Table:
    table = Table(title="Index", show_header=False, title_justify="left")
    for name in ("added", "unchanged", "replaced", "deleted", "stored"):
        table.add_row(name, str(summary[name]))
    if report.skipped:
        told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(report.skipped.items()))
        table.add_row("skipped", f"{sum(report.skipped.values())} of other types: {told}")
    table.add_row("failed", str(len(report.failed)), style="red" if report.failed else "")
    for name, reason in report.failed[:SHOWN]:
        table.add_row("", f"{_plain(name)}: {_plain(reason)}")
    if len(report.failed) > SHOWN:
        table.add_row("", f"… and {len(report.failed) - SHOWN} more (--json lists all)")
    table.add_row("seconds", f"{summary['seconds']}")
    return table


def _plain(text: str) -> str:
    """Text of a file's name or an error, which is not markup."""
    return text.replace("[", r"\[")

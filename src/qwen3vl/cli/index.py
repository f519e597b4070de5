"""`qwen3vl index`: load files, embed them and write them to a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from qwen3vl.cli.extensions import load_cluster_index
from qwen3vl.cli.models import ModelChoice, embedder_arguments
from qwen3vl.cli.output import EXIT_FAILED, EXIT_OK, one_line, print_json
from qwen3vl.ingestion import Report, Sync, ingest
from qwen3vl.ingestion.urls import is_below
from qwen3vl.loaders import Loader
from qwen3vl.loaders.find import absolute_name, expand_user
from qwen3vl.stores import open_store, parse_location

MAX_LISTED_FAILURES = 20
"""How many failures the table lists; `--json` lists all."""


def run_index(
    paths: Sequence[str],
    *,
    location: str,
    collection: str,
    choice: ModelChoice,
    revision: str | None,
    dimensions: int | None,
    segment_seconds: float,
    fuse_page_text: bool,
    hybrid: bool | str,
    sync: bool,
    cluster: str | None,
    console: Console,
    as_json: bool,
) -> int:
    """Ingest files into a store and print a summary.

    Args:
        paths: Folders, glob patterns or files.
        location: The store, as `open_store` accepts it.
        collection: The collection in the store.
        choice: Model, device, dtype and media policy.
        revision: The model's revision; None means the store's.
        dimensions: The number of values of a vector; None means the store's.
        segment_seconds: Length of the parts that a video is cut into.
        fuse_page_text: Whether a PDF page's text is embedded together with its image.
        hybrid: Whether a new collection can be searched by words; a str is the language of the texts.
        sync: Whether vectors of files that are gone from below the paths are removed.
        cluster: The address of the Ray cluster that does the work; None means this process.
        console: Where progress and tables go.
        as_json: Whether the summary is printed as JSON.

    Returns:
        The exit code.
    """
    layout = {"hybrid": hybrid} if hybrid else None
    store = open_store(location, collection, layout=layout)
    try:
        options = {"revision": revision, "dimensions": dimensions}
        settings: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        arguments = embedder_arguments(choice, store.recipe(), **settings)
        folder = Path(parse_location(location)[1])
        # A store inside of an indexed folder is not one of its documents.
        exclude = (folder,) if folder.is_dir() else ()
        loader = Loader(
            segment_seconds=segment_seconds, fuse_page_text=fuse_page_text, exclude=exclude, policy=choice.policy
        )
        start = time.monotonic()
        scope: Sync = _is_below(paths, with_urls=cluster is not None) if sync else False
        if cluster is not None:
            index = load_cluster_index()
            report = index(
                cluster, paths, location, collection=collection, loader=loader, sync=scope, layout=layout, **arguments
            )
        else:
            from qwen3vl.embedder import Embedder

            embedder = Embedder(**arguments)
            with _progress_line(console) as show_progress:
                report = ingest(loader.load(paths), embedder, store, sync=scope, progress=show_progress)
        summary = _summary(report, store.count(), time.monotonic() - start)
        if as_json:
            print_json(summary)
        else:
            console.print(_table(report, summary))
        return EXIT_FAILED if report.failed else EXIT_OK
    finally:
        store.close()


def _is_below(paths: Sequence[str], *, with_urls: bool) -> Callable[[str], bool]:
    """Return a predicate: whether a stored source is one of the paths or below one.

    Only such sources are removed if they are missing. No source is below a glob pattern.

    Args:
        paths: What is indexed.
        with_urls: Whether files of URLs are found; otherwise, a URL is the path of a file that does not exist.

    Returns:
        The predicate.
    """
    urls = [path for path in paths if with_urls and "://" in path]
    roots = [absolute_name(expand_user(path)) for path in paths if path not in urls]

    return lambda source: (
        any(is_below(source, url) for url in urls)
        if "://" in source
        else any(Path(source).is_relative_to(root) for root in roots)
    )


@contextmanager
def _progress_line(console: Console) -> Iterator[Callable[[Report], None]]:
    """Show a line with the counts of a running ingestion, and yield the function that updates it."""
    columns = (SpinnerColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("index", total=None, counts="loading")

        def update(report: Report) -> None:
            counts = f"{report.added} new, {report.unchanged} unchanged, {len(report.failed)} failed"
            indexing = f", building the index for {report.indexing_s:.0f} s" if report.indexing_s else ""
            progress.update(task, counts=f"{report.seen} documents: {counts}{indexing}")

        yield update


def _summary(report: Report, num_stored: int, seconds: float) -> dict[str, object]:
    return {
        "added": report.added,
        "unchanged": report.unchanged,
        "replaced": report.replaced,
        "deleted": report.deleted,
        "kept": report.kept,
        "not_deleted": report.not_deleted,
        "failed": [{"source": name, "reason": reason} for name, reason in report.failed],
        "skipped": report.skipped,
        "stored": num_stored,
        "seconds": round(seconds, 2),
    }


def _table(report: Report, summary: dict[str, object]) -> Table:
    table = Table(title="Index", show_header=False, title_justify="left")
    for name in ("added", "unchanged", "replaced", "deleted", "stored"):
        table.add_row(name, str(summary[name]))
    if report.skipped:
        suffixes = ", ".join(f"{count} {suffix}" for suffix, count in sorted(report.skipped.items()))
        table.add_row("skipped", Text(one_line(f"{sum(report.skipped.values())} of other types: {suffixes}")))
    if report.kept:
        table.add_row("kept", f"{sum(report.kept.values())} of files below empty folders (disks not mounted?):")
        for folder, num_points in list(report.kept.items())[:MAX_LISTED_FAILURES]:
            hint = f"{folder}: {num_points}; if the files are deleted, remove the folder"
            table.add_row("", Text(one_line(hint), overflow="fold"))
    if report.not_deleted:
        table.add_row("not deleted", f"what is gone from below the paths: {report.not_deleted}")
    table.add_row("failed", str(len(report.failed)), style="red" if report.failed else "")
    for name, reason in report.failed[:MAX_LISTED_FAILURES]:
        table.add_row("", Text(one_line(f"{name}: {reason}")))
    if len(report.failed) > MAX_LISTED_FAILURES:
        table.add_row("", f"… and {len(report.failed) - MAX_LISTED_FAILURES} more (--json lists all)")
    table.add_row("seconds", f"{summary['seconds']}")
    return table

"""`qwen3vl copy`: a collection of one store into another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from qwen3vl.cli.output import EXIT_OK, print_json
from qwen3vl.cli.stores import open_existing, resolve_location
from qwen3vl.errors import StoreError
from qwen3vl.stores import CopyReport, copy_store, open_store


def run_copy(
    source: str,
    destination: str,
    *,
    collection: str,
    new_name: str,
    layout: Mapping[str, Any] | None,
    console: Console,
    as_json: bool,
) -> int:
    """Copy a collection and print a summary.

    Args:
        source: The store to copy from, as `open_store` accepts it.
        destination: The store to copy to.
        collection: The collection in the source.
        new_name: The collection in the destination.
        layout: Fields of the destination's `Layout`; None keeps the source's.
        console: Where progress and the summary go.
        as_json: Whether the summary is printed as JSON.

    Returns:
        The exit code.

    Raises:
        StoreError: A store cannot be used, or both are the same.
    """
    if resolve_location(source) == resolve_location(destination) and collection == new_name:
        # Some folders cannot be opened twice: without this, the message would name another process.
        raise StoreError(f"{source} would be copied into itself: name another location, or give --to-collection")
    start = time.monotonic()
    from_store, _ = open_existing(source, collection)
    try:
        to_store = open_store(destination, new_name, layout=layout)
        try:
            with _progress_bar(console) as show_progress:
                report = copy_store(from_store, to_store, progress=show_progress)
            num_stored = to_store.count()
        finally:
            to_store.close()
    finally:
        from_store.close()
    summary = {
        "copied": report.copied,
        "present": report.present,
        "stored": num_stored,
        "seconds": round(time.monotonic() - start, 2),
    }
    if as_json:
        print_json(summary)
    else:
        table = Table(title="Copy", show_header=False, title_justify="left")
        for name, value in summary.items():
            table.add_row(name, str(value))
        console.print(table)
    return EXIT_OK


@contextmanager
def _progress_bar(console: Console) -> Iterator[Callable[[CopyReport], None]]:
    """Show a bar with the counts of a running copy, and yield the function that updates it."""
    columns = (BarColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("copy", total=None, counts="opening")

        def update(report: CopyReport) -> None:
            num_done = report.checked or report.copied + report.present
            counts = f"{report.copied} of {report.total} points copied, {report.present} there already"
            if report.checked:
                counts = f"{report.checked} of {report.total} points checked"
            elif report.indexing_s:
                counts += f", building the index for {report.indexing_s:.0f} s"
            progress.update(task, total=report.total, completed=num_done, counts=counts)

        yield update

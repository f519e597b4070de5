"""`copy_store`: copies a collection into another store without embedding anything again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from qwen3vl.errors import StoreError
from qwen3vl.stores.blocking import Store
from qwen3vl.stores.copy_check import check_copy, id_pages
from qwen3vl.stores.indexing import on_indexing
from qwen3vl.stores.run_sync import run_sync

T = TypeVar("T")
_MAX_POINTS = 512
"""Number of points that are read and written at once."""


@dataclass(slots=True)
class CopyReport:
    """What a copy did.

    Attributes:
        total: Number of points of the source.
        copied: Number of points that were written.
        present: Number of points that the destination had already.
        indexing_s: Seconds that the destination has been building its index, during a write or at the end; else 0.
        checked: Number of points that were looked up in the destination at the end.
    """

    total: int = 0
    copied: int = 0
    present: int = 0
    indexing_s: float = 0.0
    checked: int = 0


def copy_store(
    source: Store, destination: Store, *, progress: Callable[[CopyReport], None] | None = None
) -> CopyReport:
    """Copy a collection into another store: ids, vectors, documents, metadata, tenants and the recipe.

    Nothing is embedded, and the source is only read. Points whose id the destination has are skipped, so that a copy
    that was interrupted or killed is continued by the next call. Other points of the destination, which must have the
    same recipe, are kept. Memory does not grow with the collection.

    If the destination has no collection yet, one is created with the layout that the destination was opened with, or
    without one, if both are Qdrant, with the source's. Short, quantized and sparse vectors are not read from the
    source, but computed again.

    At the end, all ids are looked up in the destination, and vectors, documents and the hits of searches are compared
    for a sample of the points. A destination in Chroma, which has no exact search, may miss a tenth of the hits.

    Args:
        source: The collection to copy; that of a tenant has only its points.
        destination: The collection to write. With a tenant, it must be the source's.
        progress: Called after each step with the report so far.

    Returns:
        What was done.

    Raises:
        TypeError: A store is asynchronous.
        RecipeError: The destination has another recipe, or another layout than it was opened with.
        StoreError: Both are the same collection, the source does not exist, a store fails, or the copy is not equal;
            the message names what differs.

    Example:
        ```python
        copy_store(open_store("library"), open_store("http://localhost:6333"))
        ```
    """
    _check_arguments(source, destination)
    recipe = source.recipe()
    if recipe is None:
        raise source.core.missing_error()
    _call(destination, destination.core.adopt_layout(source.core))
    destination.create(recipe)
    report = CopyReport(total=source.count())

    def show() -> None:
        if progress is not None:
            progress(report)

    def show_indexing(seconds: float) -> None:
        report.indexing_s = seconds
        show()

    def show_checked(num_points: int) -> None:
        report.checked += num_points
        show()

    show()
    for ids in id_pages(source):
        present = destination.existing(ids)
        report.present += len(present)
        missing = [point_id for point_id in ids if point_id not in present]
        for start in range(0, len(missing), _MAX_POINTS):
            points = _call(source, source.core.fetch_points(missing[start : start + _MAX_POINTS]))
            try:
                with on_indexing(show_indexing):
                    destination.upsert(points)
            finally:
                report.indexing_s = 0.0
            report.copied += len(points)
            show()
    destination.build_index(show_indexing)
    check_copy(source, destination, show_checked)
    return report


def _check_arguments(source: Store, destination: Store) -> None:
    for store in (source, destination):
        if not isinstance(store, Store):
            raise TypeError(f"copy_store needs two Stores, and {type(store).__name__} is none: open a blocking client")
    if source.core.location == destination.core.location and source.collection == destination.collection:
        raise StoreError(
            f"{source.name} would be copied into itself: name another location or another collection as the destination"
        )
    if destination.tenant not in (None, source.tenant):
        raise StoreError(
            f"points keep their tenant: {source.name}, opened with the tenant {source.tenant!r}, cannot be copied to "
            f"the tenant {destination.tenant!r}. Open the destination without a tenant"
        )


def _call(store: Store, work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of a store's core, for methods that `Store` does not have."""
    with store.core.lock:
        return run_sync(work)

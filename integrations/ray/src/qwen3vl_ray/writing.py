"""`StoreDatasink` and `write`: rows with vectors into a collection on a server."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from ray.data import Dataset, Datasink
from ray.data.block import Block, BlockAccessor

from qwen3vl.documents import Document
from qwen3vl.errors import InputError, Qwen3VLError, RecipeError, StoreError
from qwen3vl.ingestion import Report
from qwen3vl.ingestion.failures import describe_error
from qwen3vl.ingestion.writing import upsert_valid
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Point
from qwen3vl_ray.documents import document_of
from qwen3vl_ray.rows import RECIPE, VECTOR, rows_of
from qwen3vl_ray.tally import Tally, read_tallies, take_failures, total, with_tally
from qwen3vl_ray.target import Target

log = logging.getLogger(__name__)
MAX_WRITERS = 4
"""Default number of tasks that write at once: what Qdrant recommends for one server."""
_WRITER_CPUS = 0.25


class StoreDatasink(Datasink[Tally]):
    """Writes rows with vectors to a collection; for `Dataset.write_datasink`.

    A row has the fields of a `Document`, `vector` and `recipe`, as `embed` adds them. Its id in the collection depends
    on these only, so that a row that is written twice is one point. Rows with an error are not written, and are in the
    report.

    Args:
        target: The collection.
        recipe: The recipe of the rows; None is what the rows say.

    Attributes:
        report: What was done; complete when the write is.

    Raises:
        RecipeError: When the write starts, if the collection has another recipe, or a layout that does not fit. The
            message names the fields that differ.
    """

    def __init__(self, target: Target, recipe: Recipe | None = None) -> None:
        self._target = target if target.run_id else replace(target, run_id=uuid4().hex)
        self._recipe = recipe
        self.tally = Tally()

    @property
    def report(self) -> Report:
        """What was done."""
        return self.tally.to_report()

    def on_write_start(self, schema: Any = None) -> None:
        """Check the collection, or create it, before anything is written; Ray calls this in the driver.

        Args:
            schema: Columns of the dataset.

        Raises:
            RecipeError: The collection has another recipe, or the vectors another size.
        """
        store = self._target.open()
        stored = store.recipe()
        if self._recipe is not None:
            self._target.prepare(self._recipe)
        elif stored is not None and (size := _vector_size(schema)) not in (None, stored.dimensions):
            raise RecipeError(
                f"{store.name} has vectors of {stored.dimensions} values, and those of the dataset have {size}. Embed "
                "with the settings of the collection, or use another collection"
            )

    def write(self, blocks: Iterable[Block], ctx: Any) -> Tally:  # noqa: ARG002 (Ray's signature)
        """Write rows; Ray calls this in a task of a worker.

        Args:
            blocks: The rows.
            ctx: Ray's description of the task.

        Returns:
            What was written, and what failed.

        Raises:
            RecipeError: A row has another recipe than the collection.
            StoreError: The store cannot be reached for two minutes, or refuses everything.
        """
        return total(self._write(BlockAccessor.for_block(block).to_arrow()) for block in blocks)

    def _write(self, table: pa.Table) -> Tally:
        documents, tally = read_tallies(table)
        documents, failures = take_failures(documents)
        tally.merge(failures)
        if documents.num_rows:
            points = self._points(documents, tally)
            upsert_valid(
                self._target.open(),
                points,
                lambda written: tally.merge(Tally(added=len(written))),
                lambda point, error: _add_failure(tally, point.document, error),
            )
        return tally

    def _points(self, table: pa.Table, tally: Tally) -> list[Point]:
        """Return the rows as points; a row that is none is a failure."""
        if RECIPE not in table.column_names or VECTOR not in table.column_names:
            raise RecipeError(f"the rows have no {VECTOR!r} or no {RECIPE!r}: embed the dataset with qwen3vl_ray.embed")
        points = []
        store = self._target.open()
        others = [name for name in table.column_names if name != VECTOR]
        for row, vector in zip(rows_of(table, others), map(_to_array, table[VECTOR]), strict=True):
            recipe = None if row[RECIPE] is None else _checked_recipe(self._target, row[RECIPE])
            try:
                document = document_of(row)
                if vector is None or recipe is None:
                    raise InputError("it has no vector or no recipe, and no error: embed the dataset first")
                if vector.shape != (recipe.dimensions,):
                    raise InputError(f"its vector has {vector.size} values, and its recipe says {recipe.dimensions}")
            except InputError as error:
                tally.merge(Tally(failed=[(row.get("source") or "", row.get("locator") or "", str(error))]))
            else:
                points.append(Point(store.point_id(document, recipe), vector, document))
        return points

    def on_write_complete(self, write_result: Any) -> None:
        """Sum up what all tasks did, and let the store build its index; Ray calls this in the driver.

        Args:
            write_result: What the tasks returned.
        """
        self.tally = total(write_result.write_returns)
        try:
            self._target.open().build_index()
        except StoreError as error:  # all points are written, and searches find them without an index, only slower
            log.warning("%s", error)

    def on_write_failed(self, error: Exception) -> None:
        """Say that a further run will go on from here; Ray calls this in the driver.

        Args:
            error: What ended the write.
        """
        log.warning(
            "writing to the collection %s ended (%s); what is written stays, and the next run goes on from there",
            self._target.collection,
            type(error).__name__,
        )


class TallySink(StoreDatasink):
    """Sums up what workers did, which have written the documents themselves. Its rows are ids and tallies."""

    def write(self, blocks: Iterable[Block], ctx: Any) -> Tally:  # noqa: ARG002 (Ray's signature)
        """Sum up tallies; Ray calls this in a task of a worker.

        Args:
            blocks: Rows of tallies, and of others, which are passed over.
            ctx: Ray's description of the task.

        Returns:
            The sum.
        """
        return total(read_tallies(BlockAccessor.for_block(block).to_arrow())[1] for block in blocks)


def _add_failure(tally: Tally, document: Document, error: Exception) -> None:
    tally.failed.append((document.source, document.locator, f"it was not written: {describe_error(error)}"))


@lru_cache(maxsize=64)
def _checked_recipe(target: Target, text: str) -> Recipe:
    """Return the recipe of rows from its JSON, checked against the collection's once in a process and run."""
    recipe = Recipe.from_dict(json.loads(text))
    target.prepare(recipe)
    return recipe


def _to_array(vector: pa.Scalar) -> NDArray[np.float32] | None:
    """Return a vector, a list of fixed or other size or a tensor of Ray; None if it is null."""
    if not vector.is_valid:
        return None
    return np.asarray(getattr(vector, "values", None) or vector.as_py(), dtype=np.float32)


def _vector_size(schema: Any) -> int | None:
    """Return the number of values of the vectors; None if the schema does not say it."""
    names = getattr(schema, "names", ())
    kind = schema.field(VECTOR).type if VECTOR in names and isinstance(schema, pa.Schema) else None
    return kind.list_size if isinstance(kind, pa.FixedSizeListType) else None


def write(
    dataset: Dataset,
    location: str,
    *,
    collection: str = "qwen3vl",
    recipe: Recipe | None = None,
    layout: Mapping[str, Any] | None = None,
    timeout_s: float | None = None,
    max_writers: int = MAX_WRITERS,
) -> Report:
    """Compute a dataset, and write its rows to a collection on a server.

    A new collection is indexed at the end: Qdrant builds no HNSW graph while points are written. Ids are those of
    `qwen3vl.ingest`, so that writing again changes nothing.

    Args:
        dataset: Rows as `embed` returns them.
        location: The URL of a server, perhaps with `qdrant:` or `chroma:` in front.
        collection: Name of the collection; it is created if it does not exist.
        recipe: The recipe of the rows: with it, a collection of another one is refused before anything is computed.
            None is what the rows say, which is checked when they are written.
        layout: As for `open_store`.
        timeout_s: As for `open_store`.
        max_writers: Maximum number of tasks that write at once.

    Returns:
        What was written, and what failed.

    Raises:
        RecipeError: The collection has another recipe or layout.
        StoreError: The store cannot be reached, or refuses everything.

    Example:
        ```python
        report = write(embed(read("scans")), "http://localhost:6333", collection="scans")
        ```
    """
    target = Target(location, collection, None if layout is None else tuple(layout.items()), timeout_s, uuid4().hex)
    target.read_recipe()
    return run(dataset, StoreDatasink(target, recipe), max_writers).report


def run(dataset: Dataset, sink: StoreDatasink, max_writers: int) -> StoreDatasink:
    """Compute a dataset into a sink.

    Args:
        dataset: The rows.
        sink: The sink.
        max_writers: Maximum number of tasks that write at once.

    Returns:
        The sink, which has the report.

    Raises:
        Qwen3VLError: What a worker has raised, if it is an error of this package.
    """
    sink.on_write_start()  # Ray calls it when the first rows have been computed already
    rows = dataset.map_batches(fold_failures, batch_size=None, batch_format="pyarrow", num_cpus=_WRITER_CPUS)
    # The context is also that of the caller's dataset.
    context, raises_original = rows.context, rows.context.raise_original_map_exception
    context.raise_original_map_exception = True  # those of Ray do not name ours
    try:
        rows.write_datasink(sink, concurrency=max_writers, ray_remote_args={"num_cpus": _WRITER_CPUS})
    except Exception as error:
        if (reason := find_cause(error)) is not None:
            raise reason from error
        raise
    finally:
        context.raise_original_map_exception = raises_original
    return sink


def fold_failures(table: pa.Table) -> pa.Table:
    """Replace rows with an error by one row that names them: a checkpoint of Ray marks rows of a sink as done.

    Args:
        table: Rows of documents and tallies.

    Returns:
        Rows without errors, and a tally if there were any.
    """
    documents, failures = take_failures(table)
    return with_tally(documents, [failures]) if failures.failed else table


def find_cause(error: BaseException | None) -> Qwen3VLError | None:
    """Return the error of this package that a worker has raised, out of those in which Ray wraps it.

    Args:
        error: What Ray has raised.

    Returns:
        The error; None if it is another one.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        cause = getattr(error, "cause", None)
        if isinstance(cause, Qwen3VLError):
            return cause
        if isinstance(error, Qwen3VLError) and type(error).__module__.startswith("qwen3vl"):
            return error
        error = cause if isinstance(cause, BaseException) else error.__cause__ or error.__context__
    return None

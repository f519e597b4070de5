"""Rows of datasets: which columns are an input of a model, and columns of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qwen3vl.inputs.parsing import INPUT_KEYS

ERROR, RECIPE, VECTOR = "error", "recipe", "vector"
"""Columns: why a row failed (null if it did not), the recipe of its vector as JSON, and the vector."""
MANIFEST = "manifest"
"""`kind` of the failure of a manifest or of one of its rows: which documents are missing is not known then."""


def check_table(batch: Any, name: str) -> pa.Table:
    """Check that a batch is an Arrow table.

    Args:
        batch: What Ray has passed to an operator.
        name: The operator, for the message.

    Returns:
        The batch.

    Raises:
        TypeError: It is of another type.
    """
    if not isinstance(batch, pa.Table):
        raise TypeError(
            f"{name} takes batches of Arrow, and this one is a {type(batch).__name__}: call map_batches with "
            'batch_format="pyarrow"'
        )
    return batch


def rows_of(table: pa.Table, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return some columns of a table as rows.

    Args:
        table: The table.
        columns: Names of columns; those that it does not have are left out.

    Returns:
        A mapping for each row.
    """
    known = [name for name in columns if name in table.column_names]
    return list(table.select(known).to_pylist()) if known else [{} for _ in range(table.num_rows)]


def input_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model gets for a row.

    Args:
        row: Values under the keys that an input may have, and perhaps `fused`: if that is false, a text beside media is
            not part of the input, as in a `Document`.

    Returns:
        The values that are neither null nor an empty text. Others are left to the model, which says what is wrong with
        them: a column of tensors has arrays, which cannot be compared with a text.
    """
    values = {
        key: row[key]
        for key in INPUT_KEYS
        if row.get(key) is not None and not (isinstance(row[key], str) and not row[key])
    }
    if row.get("fused") is False and values.keys() & {"image", "video"}:
        values.pop("text", None)
    return values


def set_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    """Return a table with a column, in place of that of the same name.

    Args:
        table: The table.
        name: The column's name.
        column: Its values.

    Returns:
        A table with the column.
    """
    index = table.schema.get_field_index(name)
    return table.append_column(name, column) if index < 0 else table.set_column(index, name, column)


def errors_of(table: pa.Table) -> list[str | None]:
    """Return the errors that the rows of a table have already.

    Args:
        table: The table.

    Returns:
        An error, or None, for each row.
    """
    return [row.get(ERROR) for row in rows_of(table, [ERROR])]


def vector_column(vectors: Sequence[NDArray[np.float32] | None], dimensions: int) -> pa.FixedSizeListArray:
    """Return vectors as a column: a fixed-size list of float32, which all batches have, also those with errors.

    Args:
        vectors: (dimensions,) float32 each, or None for a row without a vector.
        dimensions: Number of values of a vector.

    Returns:
        The column.
    """
    values = np.zeros((len(vectors), dimensions), dtype=np.float32)
    for index, vector in enumerate(vectors):
        if vector is not None:
            values[index] = vector
    missing = pa.array([vector is None for vector in vectors], pa.bool_())
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), dimensions, mask=missing)

"""Reads the annotations of data sets: the files of hub repositories, or what `datasets` has saved of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from qwen3vl.errors import InputError, Qwen3VLError
from qwen3vl.evaluation.mmeb_v2.annotation_files import INSTALL, find_files
from qwen3vl.evaluation.mmeb_v2.specs import Source

_BATCH_ROWS = 256


def read_rows(
    data: Path,
    source: Source,
    columns: Sequence[str],
    *,
    optional: Sequence[str] = (),
    max_rows: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Read the rows of a split.

    Args:
        data: The folder of all data.
        source: Repository, configuration and split.
        columns: The columns that are read; others, such as those with encoded images, cost nothing.
        optional: Columns that are read if they exist.
        max_rows: How many rows are read, from the first; None for all.

    Yields:
        The values of each row by column.

    Raises:
        InputError: The files are missing or cannot be read, or have no such column.
        Qwen3VLError: pyarrow or PyYAML is not installed.
    """
    files = find_files(data, source)
    rows = (row for file in files for row in _read_file(file, columns, optional))
    yield from islice(rows, max_rows)


def _read_file(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    try:
        if file.suffix in (".jsonl", ".json"):
            yield from _read_json(file, columns, optional)
            return
        for batch in _read_batches(file, columns, optional):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are of these types
        raise InputError(f"{file} cannot be read: {error}. Download it again.") from error


def _read_batches(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterable[Any]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise Qwen3VLError(f"{file} is read with pyarrow, which is not installed; {INSTALL}") from error
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as parquet:
            names = _existing(file, parquet.schema_arrow.names, columns, optional)
            yield from parquet.iter_batches(batch_size=_BATCH_ROWS, columns=names)
        return
    with pa.memory_map(str(file)) as stream, pa.ipc.open_stream(stream) as reader:
        names = _existing(file, reader.schema.names, columns, optional)
        for batch in reader:
            yield batch.select(names)


def _read_json(file: Path, columns: Sequence[str], optional: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read JSON lines, or a list of objects."""
    with file.open(encoding="utf-8") as stream:
        is_list = stream.read(1) == "["
        stream.seek(0)
        for row in json.load(stream) if is_list else map(json.loads, filter(str.strip, stream)):
            names = _existing(file, list(row), columns, optional)
            yield {name: row[name] for name in names}


def _existing(file: Path, names: Sequence[str], columns: Sequence[str], optional: Sequence[str]) -> list[str]:
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(f"{file} has no column {missing[0]!r}; it has {', '.join(names)}. Is it another data set?")
    return [*columns, *(name for name in optional if name in names)]

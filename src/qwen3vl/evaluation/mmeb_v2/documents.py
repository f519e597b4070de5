"""Loaders of the visual document data sets: text queries, and pages as images, in the layout of BEIR."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from qwen3vl.durable import rename
from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset, Name, Row, collect
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

_MAX_STEM = 50
"""Characters of a file's name that are kept, of pages that are named by it."""
_DIGEST_LENGTH = 8

FileName = Callable[[Name], str]
"""The name of a page's file in the folder of images, by the name of the page."""


def load_numbered_pages(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set whose pages are files `ID.png`.

    Args:
        spec: The data set.
        data: The folder of all data.

    Returns:
        The data set. A page whose file is missing is written from the annotations, as the official loader does.
    """
    return _load(spec, data, lambda name: f"{name}.png")


def load_named_pages(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set whose pages are named by files, of which long names are shortened.

    Args:
        spec: The data set.
        data: The folder of all data.

    Returns:
        As `load_numbered_pages`.
    """
    return _load(spec, data, _short_file_name)


def _load(spec: DatasetSpec, data: Path, file_name: FileName) -> LoadedDataset:
    folder = data / spec.media
    pages = {name: folder / file_name(name) for name in _corpus_names(spec, data)}
    if missing := {name: file for name, file in pages.items() if not file.exists()}:
        _write_pages(spec, data, missing)
    rows = _rows(spec, data, lambda name: folder / file_name(name))
    return collect(spec, rows, ((name, _page(file)) for name, file in pages.items()))


def _rows(spec: DatasetSpec, data: Path, file_of: Callable[[Name], Path]) -> Iterator[Row]:
    grades = _read_grades(read_rows(data, replace(spec.source, config="qrels"), ("query-id", "corpus-id", "score")))
    for fields in read_rows(data, replace(spec.source, config="queries"), ("query-id", "query")):
        query_id = fields["query-id"]
        relevant = grades.get(query_id)
        if not relevant:
            raise InputError(
                f"query {query_id!r} of {spec.name} has no relevant page in qrels; download the annotations again"
            )
        files = {name: file_of(name) for name in relevant}
        if unknown := [name for name, file in files.items() if not file.exists()]:
            raise InputError(
                f"qrels of {spec.name} name the page {unknown[0]!r}, which is neither in the corpus nor a file "
                f"{files[unknown[0]]}; download the annotations again"
            )
        yield Row(
            {"text": fields["query"], "instruction": spec.instructions[0]},
            [(name, _page(file)) for name, file in files.items()],
            list(relevant),
            list(relevant.values()),
        )


def _read_grades(rows: Iterable[Mapping[str, Any]]) -> dict[Name, dict[Name, float]]:
    """Return the grade of each relevant page by query, in their order; of several grades of one page the highest."""
    grades: dict[Name, dict[Name, float]] = {}
    for fields in rows:
        score = fields["score"]
        if score > 0:
            relevant = grades.setdefault(fields["query-id"], {})
            relevant[fields["corpus-id"]] = max(relevant.get(fields["corpus-id"], 0), score)
    return grades


def _corpus_names(spec: DatasetSpec, data: Path) -> list[Name]:
    return [fields["corpus-id"] for fields in read_rows(data, replace(spec.source, config="corpus"), ("corpus-id",))]


def _write_pages(spec: DatasetSpec, data: Path, missing: Mapping[Name, Path]) -> None:
    """Write the images of pages that are only in the annotations."""
    (data / spec.media).mkdir(parents=True, exist_ok=True)
    for fields in read_rows(data, replace(spec.source, config="corpus"), ("corpus-id", "image")):
        file = missing.get(fields["corpus-id"])
        if file is None or file.exists():
            continue
        try:
            with Image.open(BytesIO(fields["image"]["bytes"])) as image:
                picture = ImageOps.exif_transpose(image)
                temporary = file.with_name(f"{file.stem}.tmp{file.suffix}")
                picture.save(temporary)  # the suffix decides the format
        except (OSError, TypeError, ValueError) as error:
            raise InputError(
                f"page {fields['corpus-id']!r} of {spec.name} has no image at {file}, and the one in the annotations "
                f"cannot be used: {error}. Unpack visdoc-tasks/visdoc-tasks.images.tar.gz."
            ) from error
        rename(temporary, file)


def _page(file: Path) -> Mapping[str, str]:
    return {"image": str(file)}


def _short_file_name(name: Name) -> str:
    stem, suffix = os.path.splitext(str(name))  # noqa: PTH122 (it splits a name that ends with a dot otherwise)
    digest = hashlib.md5(str(name).encode(), usedforsecurity=False).hexdigest()[:_DIGEST_LENGTH]
    return f"{stem[:_MAX_STEM]}_{digest}{suffix}"


LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = {
    "vidore": load_numbered_pages,
    "visrag": load_named_pages,
}

"""The registry of loaders: functions that read a data set from the published files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2 import documents, image
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

Loader: TypeAlias = Callable[[DatasetSpec, Path], LoadedDataset]
"""A function that reads a data set: its description, and the folder of all data."""

LOADERS: Mapping[str, Loader] = {
    **image.LOADERS,
    **documents.LOADERS,
}
"""The loaders by the official names of their kinds (`dataset_parser`)."""


def load_dataset(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set.

    Args:
        spec: The data set.
        data: The folder of all data; the official scripts call it `data_basedir`.

    Returns:
        Its queries and candidates. Media are not opened.

    Raises:
        InputError: Files are missing or have another form; the message names them.
        Qwen3VLError: pyarrow or PyYAML is not installed.
    """
    loader = LOADERS.get(spec.loader)
    if loader is None:
        raise InputError(f"{spec.name} cannot be read: this version has no loader {spec.loader!r}; leave it out")
    return loader(spec, data)

"""The registry of loaders: functions that read a data set from the published files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2 import (
    documents,
    image,
    video_answers,
    video_classification,
    video_moments,
    video_retrieval,
)
from qwen3vl.evaluation.mmeb_v2.annotation_files import annotation_folder
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

Loader: TypeAlias = Callable[[DatasetSpec, Path], LoadedDataset]
"""A function that reads a data set: its description, and the folder of all data."""

LOADERS: Mapping[str, Loader] = {
    **image.LOADERS,
    **video_classification.LOADERS,
    **video_answers.LOADERS,
    **video_retrieval.LOADERS,
    **video_moments.LOADERS,
    **documents.LOADERS,
}
"""The loaders by the official names of their kinds (`dataset_parser`)."""


_WRONG_FORM = (LookupError, TypeError, ValueError, AttributeError, RecursionError)
"""What loaders raise where a value is missing, or is no text or list."""


def load_dataset(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set.

    Args:
        spec: The data set.
        data: The folder of all data; the official scripts call it `data_basedir`.

    Returns:
        Its queries and candidates. Media are not opened.

    Raises:
        InputError: Files are missing, empty or have another form; the message names them.
        Qwen3VLError: pyarrow or PyYAML is not installed.
    """
    folder = annotation_folder(data, spec.source)
    fix = f"Download the annotations of {spec.source.repo} again."
    try:
        dataset = LOADERS[spec.loader](spec, data)
    except OSError as error:
        raise InputError(f"{spec.name} cannot be read: {error}") from error
    except _WRONG_FORM as error:  # of a row, or of a file that describes the others
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{spec.name} cannot be read: what is in {folder} has another form ({reason}). {fix}"
        ) from error
    if not dataset.queries or not dataset.candidates:
        what = "candidates" if dataset.queries else "queries"
        raise InputError(f"{spec.name} has no {what}: the files in {folder} are empty. {fix}")
    return dataset

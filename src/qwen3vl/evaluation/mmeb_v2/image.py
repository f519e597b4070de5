"""Loaders of the image data sets, whose annotations are in one repository with a configuration for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset, Row, collect
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

_IMAGE_TOKEN = "<|image_1|>"  # noqa: S105 (a placeholder of another model's prompts in the published instructions)


def load_image_to_text(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of images, with or without text, whose candidates are texts.

    Args:
        spec: The data set.
        data: The folder of all data.

    Returns:
        The data set. Candidates are named by their texts; the first one of a query is right.
    """
    return collect(spec, _image_to_text_rows(spec, data))


def _image_to_text_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    for fields in read_rows(data, spec.source, ("qry_inst", "qry_text", "qry_img_path", "tgt_text")):
        texts = fields["tgt_text"]
        query = {
            "text": fields["qry_text"],
            "image": str(data / spec.media / fields["qry_img_path"]),
            "instruction": _instruction(fields),
        }
        yield Row(query, [(text, {"text": text}) for text in texts], texts[0])


def _instruction(fields: Mapping[str, Any]) -> str:
    return str(fields["qry_inst"]).replace(_IMAGE_TOKEN, "").strip()


LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = {
    "image_cls": load_image_to_text,
}

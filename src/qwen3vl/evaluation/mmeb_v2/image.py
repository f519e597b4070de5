"""Loaders of the image data sets, whose annotations are in one repository with a configuration for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import InputMapping, LoadedDataset, Name, Row, collect
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


def load_text_to_image(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of texts whose candidates are images, some with captions.

    Args:
        spec: The data set.
        data: The folder of all data.

    Returns:
        The data set. Candidates are named by their paths; the first one of a query is right.
    """
    return collect(spec, _text_to_image_rows(spec, data))


def load_image_to_image(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of images with texts whose candidates are images, or parts of images with what they show.

    Args:
        spec: The data set.
        data: The folder of all data.

    Returns:
        The data set. Candidates are named `PATH:CAPTION`; the first one of a query is right.
    """
    return collect(spec, _image_to_image_rows(spec, data))


def _image_to_text_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    for fields in read_rows(data, spec.source, ("qry_inst", "qry_text", "qry_img_path", "tgt_text")):
        texts = fields["tgt_text"]
        yield Row(_image_query(spec, data, fields), [(text, {"text": text}) for text in texts], texts[0])


def _text_to_image_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    for fields in read_rows(data, spec.source, ("qry_inst", "qry_text", "tgt_text", "tgt_img_path")):
        paths, captions = fields["tgt_img_path"], fields["tgt_text"]
        candidates: list[tuple[Name, InputMapping]] = []
        for number, path in enumerate(paths):
            caption = captions[number].strip() if number < len(captions) else ""
            candidates.append((path, {"image": _media(spec, data, path), **({"text": caption} if caption else {})}))
        yield Row({"text": fields["qry_text"], "instruction": _instruction(fields)}, candidates, paths[0])


def _image_to_image_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    columns = ("qry_inst", "qry_text", "qry_img_path", "tgt_text", "tgt_img_path")
    for number, fields in enumerate(read_rows(data, spec.source, columns)):
        paths, captions = fields["tgt_img_path"], fields["tgt_text"]
        if len(paths) != len(captions):
            raise InputError(
                f"query {number} of {spec.name} has {len(paths)} images and {len(captions)} texts as candidates; "
                "download the annotations again"
            )
        has_text = bool(captions[0].strip())  # the texts of all candidates of a query are used, or none
        candidates: list[tuple[Name, InputMapping]] = []
        for path, caption in zip(paths, captions, strict=True):
            name = path + ":" + caption.strip('"')
            candidates.append((name, {"image": _media(spec, data, path), **({"text": caption} if has_text else {})}))
        yield Row(_image_query(spec, data, fields), candidates, candidates[0][0])


def _image_query(spec: DatasetSpec, data: Path, fields: Mapping[str, Any]) -> InputMapping:
    return {
        "text": fields["qry_text"],
        "image": _media(spec, data, fields["qry_img_path"]),
        "instruction": _instruction(fields),
    }


def _media(spec: DatasetSpec, data: Path, path: str) -> str:
    return str(data / spec.media / path)


def _instruction(fields: Mapping[str, Any]) -> str:
    return str(fields["qry_inst"]).replace(_IMAGE_TOKEN, "").strip()


LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = {
    "image_cls": load_image_to_text,
    "image_qa": load_image_to_text,
    "image_i2t": load_image_to_text,
    "image_t2i": load_text_to_image,
    "image_i2i_vg": load_image_to_image,
}

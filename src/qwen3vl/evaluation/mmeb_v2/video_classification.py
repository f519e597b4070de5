"""Loaders of the video data sets whose candidates are names of actions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files as package_files
from pathlib import Path

from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import InputMapping, LoadedDataset, Row, collect
from qwen3vl.evaluation.mmeb_v2.frames import read_frames
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

LABELS_FILE = "video_labels.json"


def read_labels(dataset_name: str) -> list[str]:
    """Read the names of the classes of a data set.

    Args:
        dataset_name: Name that the official loader knows the data set by.

    Returns:
        The names, in the order of the official list.
    """
    text = package_files("qwen3vl.evaluation.mmeb_v2").joinpath(LABELS_FILE).read_text(encoding="utf-8")
    return list(json.loads(text)[dataset_name])


def load_video_classification(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of videos that rank the classes of the data set.

    Args:
        spec: The data set.
        data: The folder of all data, with frames; videos are not cut into frames.

    Returns:
        The data set. Candidates are named by their texts: the right classes as they come, then the other ones.
    """
    corpus = [(label, {"text": label}) for label in read_labels(spec.dataset_name)]
    return collect(spec, _classified_rows(spec, data), corpus)


def _classified_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    for fields in read_rows(data, spec.source, ("video_id", "pos_text"), max_rows=spec.max_queries):
        label = fields["pos_text"]
        yield Row(_video_query(spec, data, fields["video_id"]), [(label, {"text": label})], label)


def load_video_choice(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of videos that rank candidates of their own.

    Args:
        spec: The data set.
        data: The folder of all data, with frames; videos are not cut into frames.

    Returns:
        The data set. Candidates are named by their texts.
    """
    return collect(spec, _choice_rows(spec, data))


def _choice_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    columns = ("video_id", "pos_text", "neg_text")
    for fields in read_rows(data, spec.source, columns, max_rows=spec.max_queries):
        candidates = [(text, {"text": text}) for text in fields["neg_text"]]  # the right one is among them
        yield Row(_video_query(spec, data, str(fields["video_id"])), candidates, fields["pos_text"])


def _video_query(spec: DatasetSpec, data: Path, video: str) -> InputMapping:
    return {"video": read_frames(spec, data, video, spec.num_frames), "instruction": spec.instructions[0]}


LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = {
    "ssv2": load_video_choice,
    "video_classification": load_video_classification,
}

"""Loader of the video data sets that are searched by captions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import LoadedDataset, Row, collect
from qwen3vl.evaluation.mmeb_v2.frames import read_frames
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

_COLUMNS = {
    "msrvtt": ("video_id", "caption"),
    "msvd": ("video_id", "caption"),
    "didemo": ("video", "caption"),
    "youcook2": ("id", "sentence"),
    "vatex": ("videoID", "enCap"),
}
"""By loader: the columns with the video and with its caption, or captions, of which the first is used."""
_FILE_COLUMN = "video"
"""A column with the path of a video file, whose name without suffix names the video."""


def load_video_retrieval(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of captions that rank all videos.

    Args:
        spec: The data set.
        data: The folder of all data, with frames; videos are not cut into frames.

    Returns:
        The data set. Candidates are named by their videos.
    """
    return collect(spec, _rows(spec, data))


def _rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    video_column, caption_column = _COLUMNS[spec.loader]
    for fields in read_rows(data, spec.source, (video_column, caption_column), max_rows=spec.max_queries):
        video, caption = fields[video_column], fields[caption_column]
        if video_column == _FILE_COLUMN:
            video = PurePosixPath(video).stem
        query = {
            "text": caption if isinstance(caption, str) else caption[0],
            "instruction": spec.instructions[0],
        }
        yield Row(query, [(video, {"video": read_frames(spec, data, video, spec.num_frames)})], video)


LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = dict.fromkeys(_COLUMNS, load_video_retrieval)

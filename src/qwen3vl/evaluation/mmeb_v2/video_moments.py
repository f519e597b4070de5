"""Loaders of the video data sets in which a query ranks clips, each a folder of frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from qwen3vl.evaluation.mmeb_v2.annotations import read_rows
from qwen3vl.evaluation.mmeb_v2.dataset import InputMapping, LoadedDataset, Row, collect
from qwen3vl.evaluation.mmeb_v2.frames import find_folder, in_natural_order, read_frames
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

logger = logging.getLogger(__name__)

_QUERY = "query"
_POSITIVE = "positive"


def load_moments(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read a data set of videos, each with a description of one moment, which rank the clips of their folder.

    The official loader takes clips in the order in which the file system lists them; they are sorted here, which
    changes nothing but the order of equal scores.

    Args:
        spec: The data set.
        data: The folder of all data, with frames; videos are not cut into frames.

    Returns:
        The data set. Candidates are named by the paths of their folders, whose names say which one is right.
    """
    return collect(spec, _moment_rows(spec, data))


def _moment_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    for fields in read_rows(data, spec.source, ("query", "video_path"), max_rows=spec.max_queries):
        video = PurePosixPath(fields["video_path"]).stem
        query = {
            "text": fields["query"],
            "video": read_frames(spec, data, f"{video}/{_QUERY}", spec.num_frames),
            "instruction": spec.instructions[0],
        }
        folder = find_folder(spec, data, video)
        clips = [path.name for path in folder.iterdir() if path.name != _QUERY and path.is_dir()]
        clips.sort(key=in_natural_order)
        candidates = [
            (str(folder / clip), {"video": read_frames(spec, data, f"{video}/{clip}", spec.num_clip_frames)})
            for clip in clips
        ]
        positive = [str(folder / clip) for clip in clips if clip.startswith(_POSITIVE)]
        if not positive:
            logger.warning("%s: no clip in %s is named %s…; the query counts as wrong", spec.name, folder, _POSITIVE)
        yield Row(query, candidates, positive[-1] if positive else None)


def load_momentseeker(spec: DatasetSpec, data: Path) -> LoadedDataset:
    """Read MomentSeeker: sentences, alone or with a picture or a video, which rank clips of long videos.

    All frames of a folder are used, as by the official loader; the model takes the first and last and those between.

    Args:
        spec: The data set.
        data: The folder of all data, with frames; videos are not cut into frames.

    Returns:
        The data set. Candidates are named by the paths of their folders; several of them may be right.
    """
    return collect(spec, _momentseeker_rows(spec, data))


def _momentseeker_rows(spec: DatasetSpec, data: Path) -> Iterator[Row]:
    columns = ("query", "positive_frames", "negative_frames", "input_frames")
    for fields in read_rows(data, spec.source, columns, max_rows=spec.max_queries):
        query = _momentseeker_query(spec, data, fields["query"], fields["input_frames"])
        positive, negative = (
            [_clip_folder(clip["output_path"]) for clip in fields[column]]
            for column in ("positive_frames", "negative_frames")
        )
        candidates = [
            (str(data / spec.media / clip), {"video": read_frames(spec, data, clip)}) for clip in (*positive, *negative)
        ]
        yield Row(query, candidates, [name for name, _ in candidates[: len(positive)]])


def _momentseeker_query(spec: DatasetSpec, data: Path, text: str, medium: str) -> InputMapping:
    for_text, for_image, for_video = spec.instructions
    if medium.endswith(".mp4"):
        return {"text": text, "video": read_frames(spec, data, _clip_folder(medium)), "instruction": for_video}
    if medium.endswith(".jpg"):
        image = str(data / spec.media / f"query_{medium}")
        return {"text": text, "image": image, "instruction": for_image}
    return {"text": text, "instruction": for_text}


def _clip_folder(video: str) -> str:
    """Return the folder of a video file's frames: its path up to the suffix, with `_` between the parts."""
    return f"video_frames/{video.partition('.mp4')[0].replace('/', '_')}"


LOADERS: Mapping[str, Callable[[DatasetSpec, Path], LoadedDataset]] = {
    "moment_retrieval": load_moments,
    "momentseeker": load_momentseeker,
}

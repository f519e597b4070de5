"""Frames of videos: a folder of pictures for each, as the archives of the benchmark have them.

Videos are not cut into frames here. The archives below `video-tasks/frames` hold the frames of the benchmark; the
official scripts cut a video only where its folder is missing.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

FRAMES = "video-tasks/frames"
_SUFFIXES = (".jpg", ".jpeg", ".png")
_UNPACK = {
    "video_cls": "mkdir -p video_cls && tar -xzf video_cls.tar.gz -C video_cls",
    "video_qa": "cat video_qa.tar.gz-0* | tar -xz",
    "video_ret": "mkdir -p video_ret && tar -xzf video_ret.tar.gz -C video_ret",
    "video_mret": "tar -xzf video_mret.tar.gz",
}
"""By folder below `video-tasks/frames`: the command that makes it there, from the archives of TIGER-Lab/MMEB-V2."""


def read_frames(spec: DatasetSpec, data: Path, name: str, num_frames: int | None = None) -> list[str]:
    """List the frames of a video in order.

    Args:
        spec: The data set.
        data: The folder of all data.
        name: Folder of the frames, below that of the data set.
        num_frames: How many frames are used, evenly spread from the first to the last; all if there are fewer, or None.

    Returns:
        Paths of the frames.

    Raises:
        InputError: There is no such folder, or there are no frames in it.
    """
    folder = find_folder(spec, data, name)
    names = sorted((path.name for path in folder.iterdir()), key=in_natural_order)
    frames = [f"{folder}/{file}" for file in names if file.lower().endswith(_SUFFIXES)]
    if not frames:
        raise InputError(f"{folder} has no frames, which end in {', '.join(_SUFFIXES)}. {_hint(spec, data)}")
    if num_frames is None or num_frames > len(frames):
        return frames
    return [frames[index] for index in np.linspace(0, len(frames) - 1, num_frames, dtype=int)]


def find_folder(spec: DatasetSpec, data: Path, name: str) -> Path:
    """Return a folder with frames of a data set.

    Args:
        spec: The data set.
        data: The folder of all data.
        name: The folder, below that of the data set.

    Returns:
        The folder, which exists.

    Raises:
        InputError: It does not.
    """
    folder = data / spec.media / name
    if not folder.is_dir():
        raise InputError(f"frames of {spec.name} are missing: there is no folder {folder}. {_hint(spec, data)}")
    return folder


def in_natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a key that sorts names by their words and numbers: `frame_9` before `frame_10`.

    Args:
        name: Name of a file or folder.

    Returns:
        The words in lower case and the numbers in turn, and the name, which orders those that are otherwise alike.
    """
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", name)], name


def _hint(spec: DatasetSpec, data: Path) -> str:
    part = spec.media.removeprefix(f"{FRAMES}/").split("/")[0]
    return f"Unpack the archive of TIGER-Lab/MMEB-V2 again: cd {data / FRAMES} && {_UNPACK[part]}"

"""Parses an input of any accepted type into an `Item`.

A str is always text. Everything else is recognised by its type, or by its key in a mapping.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from io import BytesIO
from numbers import Integral, Real
from os import PathLike
from typing import Any

from PIL import Image

from qwen3vl.errors import InputError
from qwen3vl.inputs.items import Item, VideoReference
from qwen3vl.inputs.references import (
    as_image,
    as_video,
    is_array,
    is_video,
    is_video_array,
    type_name,
)
from qwen3vl.inputs.text import check_text

INPUT_KEYS = ("text", "image", "video", "instruction", "fps", "max_frames")
"""Keys that a mapping may have."""
_MIN_FRAMES = 2
"""The vision tower reads frames in pairs."""


def as_item(value: Any) -> Item:
    """Parse one input.

    Args:
        value: A str (text), a mapping with any of `INPUT_KEYS`, a path, bytes, a PIL image, an array, or an `Item`,
            which is returned as it is. An `InputError` is raised as it is.

    Returns:
        The item. Media are not opened.

    Raises:
        InputError: The input is empty, has an unknown key, a value of a wrong type, or a text with a lone surrogate.

    Example:
        ```python
        as_item({"image": "photo.jpg", "text": "a caption"})
        ```
    """
    item = _parse(value)
    for text in item.texts:
        check_text(text)
    if item.instruction is not None:
        check_text(item.instruction, "the instruction")
    return item


def _parse(value: Any) -> Item:
    if isinstance(value, Item):
        return value
    if isinstance(value, InputError):
        raise value
    if isinstance(value, str):
        return _require_content(Item(texts=(value,)))
    if isinstance(value, Mapping):
        return _parse_mapping(value)
    if is_video_array(value) or (isinstance(value, PathLike) and is_video(os.fsdecode(value))):
        return Item(videos=(as_video(value),))
    if isinstance(value, (PathLike, bytes, bytearray, BytesIO, Image.Image)) or is_array(value):
        return Item(images=(as_image(value),))
    raise InputError(
        f"an input is a str, a mapping with any of {', '.join(INPUT_KEYS)}, a path, bytes, a PIL image or an array; "
        f"this is {type_name(value)}"
    )


def _parse_mapping(mapping: Mapping[str, Any]) -> Item:
    unknown_keys = [key for key in mapping if key not in INPUT_KEYS]
    if unknown_keys:
        raise InputError(f"unknown key {unknown_keys[0]!r}; an input may have {', '.join(INPUT_KEYS)}")
    texts = _as_list(mapping.get("text"))
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"'text' must be a str or a list of them; this is {type_name(text)}")
    instruction, fps, max_frames = mapping.get("instruction"), mapping.get("fps"), mapping.get("max_frames")
    if instruction is not None and not isinstance(instruction, str):
        raise InputError(f"'instruction' must be a str; this is {type_name(instruction)}")
    if fps is not None and not _is_rate(fps):
        raise InputError(f"'fps' must be a positive number of frames per second; this is {fps!r}")
    if max_frames is not None and not (isinstance(max_frames, Integral) and int(max_frames) >= _MIN_FRAMES):
        raise InputError(f"'max_frames' must be a whole number of at least {_MIN_FRAMES}; this is {max_frames!r}")
    item = Item(
        texts=tuple(texts),
        images=tuple(as_image(image) for image in _as_list(mapping.get("image"))),
        videos=tuple(as_video(video) for video in _as_video_list(mapping.get("video"))),
        instruction=instruction,
        fps=None if fps is None else float(fps),
        max_frames=None if max_frames is None else int(max_frames),
    )
    return _require_content(item)


def _is_rate(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < math.inf
    except OverflowError:  # an integer beyond all floats
        return False


def _require_content(item: Item) -> Item:
    if not item.images and not item.videos and not any(item.texts):
        raise InputError("it is empty: it needs a text that is not empty, an image or a video")
    return item


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _as_video_list(value: Any) -> list[Any]:
    """Return the videos of a mapping's value, which is one video or a list of them.

    A list of images is one video, given by its frames; the first element's type decides which of the two a list is.
    """
    if not isinstance(value, (list, tuple)):
        return [] if value is None else [value]
    if not value:
        return []
    first = value[0]
    is_video_list = (
        isinstance(first, (list, tuple, VideoReference))
        or is_video_array(first)
        or (isinstance(first, (str, PathLike)) and is_video(os.fsdecode(first)))
    )
    return list(value) if is_video_list else [value]

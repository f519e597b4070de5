"""What a caller passes: parsed into frozen `Item`s, before anything is opened."""

from qwen3vl.inputs.parsing import (
    KEYS,
    VIDEO_SUFFIXES,
    ImageInput,
    ImageReference,
    Input,
    Item,
    VideoInput,
    VideoReference,
    as_image,
    as_item,
    as_video,
    is_video,
    shorten,
)

__all__ = [
    "KEYS",
    "VIDEO_SUFFIXES",
    "ImageInput",
    "ImageReference",
    "Input",
    "Item",
    "VideoInput",
    "VideoReference",
    "as_image",
    "as_item",
    "as_video",
    "is_video",
    "shorten",
]

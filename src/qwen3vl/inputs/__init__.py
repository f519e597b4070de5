"""Parses what a caller passes into frozen `Item`s. No file or address is opened."""

from qwen3vl.inputs.copies import aparse
from qwen3vl.inputs.items import (
    ImageInput,
    ImageReference,
    Input,
    Item,
    Origin,
    VideoInput,
    VideoReference,
    shorten,
)
from qwen3vl.inputs.parsing import INPUT_KEYS, as_item
from qwen3vl.inputs.references import VIDEO_SUFFIXES, as_image, as_video, is_video, type_name
from qwen3vl.inputs.text import check_text

__all__ = [
    "INPUT_KEYS",
    "VIDEO_SUFFIXES",
    "ImageInput",
    "ImageReference",
    "Input",
    "Item",
    "Origin",
    "VideoInput",
    "VideoReference",
    "aparse",
    "as_image",
    "as_item",
    "as_video",
    "check_text",
    "is_video",
    "shorten",
    "type_name",
]

"""Parsed inputs: frozen dataclasses that refer to media without opening them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwen3vl.errors import InputError

ImageInput: TypeAlias = "str | PathLike[str] | bytes | BytesIO | Image.Image | NDArray[np.uint8]"
VideoInput: TypeAlias = "str | PathLike[str] | bytes | BytesIO | Sequence[ImageInput] | NDArray[np.uint8]"
Input: TypeAlias = (
    "str | Mapping[str, Any] | Item | PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | InputError"
)
"""Everything that `Embedder.embed` and `Reranker.score` accept as one input.

An `InputError` stands for an input that an adapter could not read: it becomes the error of that item, and the other
items are processed as usual.
"""

Origin = Literal["path", "url", "bytes", "pixels"]
"""What the `data` of a reference is: a path, an http(s) URL, an encoded file, or decoded pixels."""

_NAME_CHARACTERS = 40


@dataclass(frozen=True, slots=True, eq=False)
class ImageReference:
    """A reference to an image, or to a page of a PDF.

    Attributes:
        origin: What `data` is.
        data: A path (str), a URL (str), an encoded file (bytes), or a PIL image if `origin` is `"pixels"`.
        name: The image in error messages.
        page: Page number, from 1, if the file is a PDF.
    """

    origin: Origin
    data: Any
    name: str
    page: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VideoReference:
    """A reference to a video file or a part of one, or a list of frames.

    Attributes:
        origin: What `data` is; `"pixels"` for a list of frames.
        data: A path (str), a URL (str) or an encoded file (bytes); None for a list of frames.
        name: The video in error messages.
        start: Start of the part in seconds; None for the beginning.
        end: End of the part in seconds; None for the end.
        frames: The frames, if the video is a list of them.
    """

    origin: Origin
    data: Any
    name: str
    start: float | None = None
    end: float | None = None
    frames: tuple[ImageReference, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One input: any number of videos, images and texts, which become one prompt.

    Attributes:
        texts: Texts, in order.
        images: Images, in order.
        videos: Videos, in order.
        instruction: Instruction of this input; None means that of the call or of the model.
        fps: Frames per second that are sampled from video files; None means the model's setting.
        max_frames: Maximum number of frames that are sampled from a video; None means the model's setting.
    """

    texts: tuple[str, ...] = ()
    images: tuple[ImageReference, ...] = ()
    videos: tuple[VideoReference, ...] = ()
    instruction: str | None = None
    fps: float | None = None
    max_frames: int | None = None

    @property
    def name(self) -> str:
        """The names of the media, or the beginning of the text, for error messages."""
        media_names = [video.name for video in self.videos] + [image.name for image in self.images]
        if media_names:
            return ", ".join(media_names)
        return f"text {shorten(' '.join(self.texts), _NAME_CHARACTERS)!r}"


def shorten(text: str, max_characters: int) -> str:
    """Truncate a text, with an ellipsis as its last character.

    Args:
        text: Any text.
        max_characters: Maximum length of the result.

    Returns:
        The text itself if it is short enough.
    """
    return text if len(text) <= max_characters else text[: max_characters - 1] + "…"

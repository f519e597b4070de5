"""What a caller may pass, made into frozen `Item`s.

A `str` is always text.  Everything else is told by its type, or by the key it stands under in a mapping.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from numbers import Integral, Real
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwen3vl.errors import InputError

KEYS = ("text", "image", "video", "instruction", "fps", "max_frames")
VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2ts"})
_SPAN = re.compile(r"#t=(?P<start>\d+(?:\.\d+)?)?(?:,(?P<end>\d+(?:\.\d+)?))?$")
_PAGE = re.compile(r"#page=(?P<page>\d+)$")

ImageInput: TypeAlias = "str | PathLike[str] | bytes | BytesIO | Image.Image | NDArray[np.uint8]"
VideoInput: TypeAlias = "str | PathLike[str] | bytes | BytesIO | Sequence[ImageInput] | NDArray[np.uint8]"
Input: TypeAlias = (
    "str | Mapping[str, Any] | Item | PathLike[str] | bytes | Image.Image | NDArray[np.uint8] | InputError"
)
"""An `InputError` is an input that an adapter could not read: it fails in its place, and costs the others nothing."""

Where = Literal["path", "url", "bytes", "pixels"]


@dataclass(frozen=True, slots=True, eq=False)
class ImageReference:
    """A reference to a picture.

    `data` is a path, a URL, encoded bytes or a PIL image, as `where` says; `page` is the page (from 1) of
    a PDF; `name` is how errors speak of it.
    """

    where: Where
    data: Any
    name: str
    page: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class VideoReference:
    """A reference to a clip: a file (path, URL or bytes) from `start` to `end` seconds, or a list of `frames`."""

    where: Where
    data: Any
    name: str
    start: float | None = None
    end: float | None = None
    frames: tuple[ImageReference, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One input: any number of clips, pictures and texts, seen together as one."""

    texts: tuple[str, ...] = ()
    images: tuple[ImageReference, ...] = ()
    videos: tuple[VideoReference, ...] = ()
    instruction: str | None = None
    fps: float | None = None
    max_frames: int | None = None

    @property
    def name(self) -> str:
        """The item in a few words, for errors."""
        media = [clip.name for clip in self.videos] + [picture.name for picture in self.images]
        if media:
            return ", ".join(media)
        return f"text {shorten(' '.join(self.texts), 40)!r}"


def shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def as_item(value: Any) -> Item:
    """Reads one input.

    Raises `InputError` where it is empty, has an unknown key, or holds something of a wrong type.
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, InputError):
        raise value
    if isinstance(value, str):
        return _checked(Item(texts=(value,)))
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if isinstance(value, PathLike):
        if Path(value).suffix.lower() in VIDEO_SUFFIXES:
            return Item(videos=(as_video(value),))
        return Item(images=(as_image(value),))
    if isinstance(value, (bytes, bytearray, BytesIO, Image.Image)):
        return Item(images=(as_image(value),))
    if _is_array(value):
        if np.asarray(value).ndim == 4:
            return Item(videos=(as_video(value),))
        return Item(images=(as_image(value),))
    raise InputError(
        f"an input is a str, a mapping with any of {', '.join(KEYS)}, a path, bytes, a PIL image or an array; "
        f"this is {_type(value)}"
    )


def _from_mapping(value: Mapping[str, Any]) -> Item:
    unknown = [key for key in value if key not in KEYS]
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r}; an input may have {', '.join(KEYS)}")
    texts = _as_list(value.get("text"))
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"'text' must be a str or a list of them; this is {_type(text)}")
    instruction, fps, max_frames = value.get("instruction"), value.get("fps"), value.get("max_frames")
    if instruction is not None and not isinstance(instruction, str):
        raise InputError(f"'instruction' must be a str; this is {_type(instruction)}")
    if fps is not None and not (isinstance(fps, Real) and not isinstance(fps, bool) and 0 < float(fps) < math.inf):
        raise InputError(f"'fps' must be a positive number of frames a second; this is {fps!r}")
    if max_frames is not None and not (isinstance(max_frames, Integral) and int(max_frames) >= 2):
        raise InputError(f"'max_frames' must be a whole number of at least 2; this is {max_frames!r}")
    item = Item(
        texts=tuple(texts),
        images=tuple(as_image(image) for image in _as_list(value.get("image"))),
        videos=tuple(as_video(video) for video in _videos(value.get("video"))),
        instruction=instruction,
        fps=None if fps is None else float(fps),
        max_frames=None if max_frames is None else int(max_frames),
    )
    return _checked(item)


def _checked(item: Item) -> Item:
    if not item.images and not item.videos and not any(item.texts):
        raise InputError("it is empty: it needs a text that is not empty, an image or a video")
    return item


def _videos(value: Any) -> list[Any]:
    """One clip or a list of clips; a list whose first element is a single picture is one clip of frames."""
    if isinstance(value, (list, tuple)) and value:
        first = value[0]
        if isinstance(first, (list, tuple, VideoReference)) or (_is_array(first) and np.asarray(first).ndim == 4):
            return list(value)
        if isinstance(first, (str, PathLike)) and is_video(fspath(first)):
            return list(value)
        return [value]
    return [] if value is None or (isinstance(value, (list, tuple)) and not value) else [value]


def is_video(reference: str) -> bool:
    """Whether a path, URL or data URI names a clip, by its suffix or media type."""
    if reference[:11].lower() == "data:video/":
        return True
    path = urlsplit(reference).path if "://" in reference else reference
    return Path(_SPAN.sub("", path)).suffix.lower() in VIDEO_SUFFIXES


def as_image(value: Any) -> ImageReference:
    """A picture: path, file:// or http(s) URL, data URI, bytes, BytesIO, PIL image, or uint8 array."""
    if isinstance(value, ImageReference):
        return value
    if isinstance(value, (str, PathLike)):
        reference = fspath(value)
        page = None
        if found := _PAGE.search(reference):
            page, reference = int(found["page"]), reference[: found.start()]
        where, data, name = _locate(reference, "image")
        return ImageReference(where, data, name if page is None else f"{name}#page={page}", page)
    if isinstance(value, (bytes, bytearray)):
        return ImageReference("bytes", bytes(value), f"image of {len(value)} bytes")
    if isinstance(value, BytesIO):
        return as_image(value.getvalue())
    if isinstance(value, Image.Image):
        return ImageReference("pixels", _own(value), f"PIL image of {value.width} x {value.height}")
    if _is_array(value):
        array = np.asarray(value)
        return ImageReference("pixels", _array_picture(array), f"array of shape {array.shape}")
    raise InputError(
        f"an image is a path, a URL, a data URI, bytes, a PIL image or a uint8 array; this is {_type(value)}"
    )


def as_video(value: Any) -> VideoReference:
    """A clip: path, file:// or http(s) URL (with `#t=start,end` for a part), bytes, or a list of frames."""
    if isinstance(value, VideoReference):
        return value
    if isinstance(value, (str, PathLike)):
        reference = fspath(value)
        start = end = None
        suffix = ""
        if found := _SPAN.search(reference):
            start, end = (float(found[name]) if found[name] else None for name in ("start", "end"))
            suffix, reference = found[0], reference[: found.start()]
        where, data, name = _locate(reference, "video")
        return VideoReference(where, data, name + suffix, start, end)
    if isinstance(value, (bytes, bytearray)):
        return VideoReference("bytes", bytes(value), f"video of {len(value)} bytes")
    if isinstance(value, BytesIO):
        return as_video(value.getvalue())
    if isinstance(value, (list, tuple)) or (_is_array(value) and np.asarray(value).ndim == 4):
        frames = tuple(as_image(frame) for frame in value)
        if not frames:
            raise InputError("the video is an empty list of frames")
        return VideoReference("pixels", None, f"video of {len(frames)} frames ({frames[0].name}, …)", frames=frames)
    raise InputError(f"a video is a path, a URL, bytes, or a list of frames; this is {_type(value)}")


def _locate(reference: str, kind: str) -> tuple[Where, Any, str]:
    """Where a string refers to, what to open there, and its name in errors."""
    scheme = reference[:8].lower()
    if scheme.startswith("data:"):
        return "bytes", _data_uri(reference), f"{kind} in a data URI of {len(reference)} characters"
    if scheme.startswith(("http://", "https://")):
        return "url", reference, reference
    if scheme.startswith("file://"):
        parts = urlsplit(reference)
        if parts.netloc not in ("", "localhost"):
            raise InputError(f"{reference}: a file URL names a path on this machine (file:///…), not a host")
        # A '#' or '?' may belong to the file's name: only the scheme is taken off.
        path = url2pathname(unquote(reference[len("file://") + len(parts.netloc) :]))
        return "path", path, path
    if not reference:
        raise InputError(f"the {kind} is an empty string")
    if "://" in reference:
        raise InputError(
            f"{shorten(reference, 80)}: URLs of this kind are not opened, only http(s):// and file://; "
            "fetch it yourself and pass its bytes"
        )
    return "path", reference, reference


def _data_uri(uri: str) -> bytes:
    import base64
    import binascii

    head, comma, body = uri.partition(",")
    if not comma:
        raise InputError("the data URI has no comma between its type and its content")
    try:
        if head.lower().endswith(";base64"):
            return base64.b64decode("".join(unquote(body).split()), validate=True)
        return unquote(body).encode("latin-1")
    except (binascii.Error, ValueError) as error:
        raise InputError(f"the data URI does not hold valid data: {error}") from error


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") and hasattr(value, "shape") and not isinstance(value, Image.Image)


def _array_picture(array: NDArray[Any]) -> Image.Image:
    """A (height, width), (height, width, 1), (…, 3) or (…, 4) uint8 array as a picture."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"an image array has shape (height, width), or (height, width, 3 or 4), and dtype uint8; this one has "
            f"shape {array.shape} and dtype {array.dtype}"
        )
    if 0 in array.shape:
        raise InputError(f"the image array of shape {array.shape} has no pixels")
    return Image.fromarray(np.array(array, order="C"))


def _own(picture: Image.Image) -> Image.Image:
    """A decoded copy: callers reuse their objects, and Pillow does not decode one on two threads at once."""
    try:
        return picture.copy()
    except Exception as error:  # decoders of broken files raise nearly anything
        raise InputError(f"the PIL image is broken: {error or type(error).__name__}") from error


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _type(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")

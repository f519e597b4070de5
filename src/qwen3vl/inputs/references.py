"""Parses references to images and videos. Nothing is opened here."""

from __future__ import annotations

import os
import re
import sys
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from qwen3vl.errors import InputError
from qwen3vl.inputs.data_uri import decode_data_uri
from qwen3vl.inputs.items import ImageReference, Origin, VideoReference, shorten

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2ts"})
"""Suffixes of files that are taken as videos."""

_TIME_FRAGMENT = re.compile(r"#t=(?P<start>\d+(?:\.\d+)?)?(?:,(?P<end>\d+(?:\.\d+)?))?$")
"""A temporal media fragment, as in https://www.w3.org/TR/media-frags/: `#t=10,25`, `#t=10` or `#t=,25`."""
_PAGE_FRAGMENT = re.compile(r"#page=(?P<page>\d{1,18})$")
"""A page of a PDF, as in RFC 8118."""
_NAME_CHARACTERS = 80
_LONG_NAME_CHARACTERS = 4096
"""Longest path that Linux opens. What is longer was meant as something else, such as base64."""


def as_image(value: Any) -> ImageReference:
    """Parse a reference to an image.

    Args:
        value: A path, file:// or http(s) URL (each with `#page=N` for a page of a PDF), data URI, bytes, BytesIO, PIL
            image, uint8 array of shape (height, width), (height, width, 1), (height, width, 3) or
            (height, width, 4), or an `ImageReference`, which is returned as it is.

    Returns:
        The reference. Pixels of PIL images and arrays are copied, so that the caller may change them later.

    Raises:
        InputError: The value has another type, or it is a string or an array that cannot be an image.
    """
    if isinstance(value, ImageReference):
        return value
    if isinstance(value, (str, PathLike)):
        reference = os.fsdecode(value)
        page = None
        if match := _PAGE_FRAGMENT.search(reference):
            page, reference = int(match["page"]), reference[: match.start()]
        origin, data, name = _parse_location(reference, "image")
        return ImageReference(origin, data, name if page is None else f"{name}#page={page}", page)
    if isinstance(value, (bytes, bytearray)):
        return ImageReference("bytes", bytes(value), f"image of {len(value)} bytes")
    if isinstance(value, BytesIO):
        return as_image(value.getvalue())
    if isinstance(value, Image.Image):
        return ImageReference("pixels", _copy_image(value), f"PIL image of {value.width} x {value.height}")
    if is_array(value):
        array = np.asarray(value)
        return ImageReference("pixels", _array_to_image(array), f"array of shape {array.shape}")
    raise InputError(
        f"an image is a path, a URL, a data URI, bytes, a PIL image or a uint8 array; this is {type_name(value)}"
    )


def as_video(value: Any) -> VideoReference:
    """Parse a reference to a video.

    Args:
        value: A path, file:// or http(s) URL (each with `#t=start,end` for a part, in seconds), data URI, bytes,
            BytesIO, a list of frames (each as `as_image` accepts it), a uint8 array of shape
            (num_frames, height, width, 3), or a `VideoReference`, which is returned as it is.

    Returns:
        The reference.

    Raises:
        InputError: The value has another type, is an empty list, or is a string that cannot be a video.
    """
    if isinstance(value, VideoReference):
        return value
    if isinstance(value, (str, PathLike)):
        reference = os.fsdecode(value)
        start = end = None
        fragment = ""
        if match := _TIME_FRAGMENT.search(reference):
            start, end = (float(match[name]) if match[name] else None for name in ("start", "end"))
            fragment, reference = match[0], reference[: match.start()]
        origin, data, name = _parse_location(reference, "video")
        return VideoReference(origin, data, name + fragment, start, end)
    if isinstance(value, (bytes, bytearray)):
        return VideoReference("bytes", bytes(value), f"video of {len(value)} bytes")
    if isinstance(value, BytesIO):
        return as_video(value.getvalue())
    if isinstance(value, (list, tuple)) or is_video_array(value):
        frames = tuple(as_image(frame) for frame in value)
        if not frames:
            raise InputError("the video is an empty list of frames; pass at least one frame, or leave the video out")
        return VideoReference("pixels", None, f"video of {len(frames)} frames ({frames[0].name}, …)", frames=frames)
    raise InputError(f"a video is a path, a URL, bytes, or a list of frames; this is {type_name(value)}")


def is_video(reference: str) -> bool:
    """Return whether a path, URL or data URI names a video, by its suffix or media type.

    Args:
        reference: The path, URL or data URI, with or without a `#t=` fragment.

    Returns:
        True for a data URI of type `video/*` and for the suffixes in `VIDEO_SUFFIXES`.
    """
    if reference[:11].lower() == "data:video/":
        return True
    path = _TIME_FRAGMENT.sub("", reference)
    if path[:8].lower().startswith(("http://", "https://")):
        path = _path_of_http_url(path)
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def _path_of_http_url(url: str) -> str:
    """Return the path in an http(s) URL; empty if it is malformed, which is an error when it is fetched."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def is_array(value: Any) -> bool:
    """Return whether this is a NumPy array or another object that converts to one, such as a torch tensor.

    Args:
        value: Any object.

    Returns:
        False for PIL images, although they convert too.
    """
    return hasattr(value, "__array__") and hasattr(value, "shape") and not isinstance(value, Image.Image)


def is_video_array(value: Any) -> bool:
    """Return whether this is an array with four dimensions, (num_frames, height, width, channels).

    Args:
        value: Any object.

    Returns:
        False for anything that is no array.
    """
    return is_array(value) and np.asarray(value).ndim == 4


def type_name(value: Any) -> str:
    """Return the name of a value's type for error messages.

    Args:
        value: Any object.

    Returns:
        The qualified name, without the module for built-in types.
    """
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _parse_location(reference: str, kind: str) -> tuple[Origin, Any, str]:
    """Return what a string refers to, what to open there, and its name in error messages."""
    scheme = reference[:8].lower()
    if scheme.startswith("data:"):
        return "bytes", decode_data_uri(reference), f"{kind} in a data URI of {len(reference)} characters"
    if scheme.startswith(("http://", "https://")):
        return "url", reference, shorten(reference, _LONG_NAME_CHARACTERS)
    if scheme.startswith("file://"):
        host, slash, path = reference[len("file://") :].partition("/")
        if host not in ("", "localhost"):
            raise InputError(
                f"{reference}: a file URL names a path on this machine, not a host; write it as file:///path/to/file"
            )
        path = _path_of_file_url(slash + path)
        return "path", path, shorten(path, _LONG_NAME_CHARACTERS)
    if not reference:
        raise InputError(f"the {kind} is an empty string; pass a path or a URL, or leave it out")
    if "://" in reference:
        raise InputError(
            f"{shorten(reference, _NAME_CHARACTERS)}: URLs of this kind are not opened, only http(s):// and file://; "
            "fetch it yourself and pass its bytes"
        )
    return "path", reference, shorten(reference, _LONG_NAME_CHARACTERS)


def _path_of_file_url(path: str) -> str:
    """Return the path that stands behind the scheme and host of a file URL, as `Path.as_uri` writes it (RFC 8089).

    A "#" or "?" may belong to the file's name, unlike in `urllib.request.url2pathname` of Python 3.14.
    """
    path = unquote(path, sys.getfilesystemencoding(), sys.getfilesystemencodeerrors())
    if os.name == "nt" and path[2:3] == ":":
        path = path.removeprefix("/")  # /C:/folder/file
    return path


def _array_to_image(array: NDArray[Any]) -> Image.Image:
    """Convert a uint8 array of shape (height, width[, 1, 3 or 4]) to an image with pixels of its own."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise InputError(
            f"an image array has shape (height, width), or (height, width, 3 or 4), and dtype uint8; this one has "
            f"shape {array.shape} and dtype {array.dtype}"
        )
    if 0 in array.shape:
        raise InputError(f"the image array of shape {array.shape} has no pixels; leave it out")
    return Image.fromarray(np.array(array, order="C"))


def _copy_image(image: Image.Image) -> Image.Image:
    """Decode and copy an image: callers reuse their objects, and Pillow images must not be decoded by two threads."""
    try:
        return image.copy()
    except Exception as error:  # decoders raise nearly anything on broken files
        raise InputError(f"the PIL image is broken: {error or type(error).__name__}; open the file again") from error

"""What an encoded file is, by its first bytes: names and headers of clients are not trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from qwen3vl.inputs import VIDEO_SUFFIXES
from qwen3vl.loaders.folder import IMAGE_SUFFIXES, TEXT_SUFFIXES

HEAD_BYTES = 4096
"""How many bytes of a file `detect` looks at; it needs fewer for all but a Matroska header with long fields."""
MediaClass = Literal["image", "pdf", "video"]


@dataclass(frozen=True, slots=True)
class MediaType:
    """A type of files.

    Attributes:
        name: The media type for `Content-Type`.
        suffix: A suffix by which a `Loader` knows such files.
        media_class: What a `Loader` makes of them.
        shown: Whether browsers show it as it is.
    """

    name: str
    suffix: str
    media_class: MediaClass
    shown: bool = True


_PNG = MediaType("image/png", ".png", "image")
_JPEG = MediaType("image/jpeg", ".jpg", "image")
_GIF = MediaType("image/gif", ".gif", "image")
_WEBP = MediaType("image/webp", ".webp", "image")
_AVIF = MediaType("image/avif", ".avif", "image")
_BMP = MediaType("image/bmp", ".bmp", "image")
_TIFF = MediaType("image/tiff", ".tiff", "image", shown=False)
_JP2 = MediaType("image/jp2", ".jp2", "image", shown=False)
_PPM = MediaType("image/x-portable-pixmap", ".ppm", "image", shown=False)
_PDF = MediaType("application/pdf", ".pdf", "pdf", shown=False)
_MP4 = MediaType("video/mp4", ".mp4", "video")
_QUICKTIME = MediaType("video/quicktime", ".mov", "video")
_WEBM = MediaType("video/webm", ".webm", "video")
_MATROSKA = MediaType("video/x-matroska", ".mkv", "video")
_AVI = MediaType("video/x-msvideo", ".avi", "video")
_MPEG = MediaType("video/mpeg", ".mpg", "video")

_PREFIXES: tuple[tuple[bytes, MediaType], ...] = (
    (b"\x89PNG\r\n\x1a\n", _PNG),
    (b"\xff\xd8\xff", _JPEG),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"BM", _BMP),
    (b"II*\0", _TIFF),
    (b"MM\0*", _TIFF),
    (b"\0\0\0\x0cjP  \r\n\x87\n", _JP2),
    (b"\xff\x4f\xff\x51", _JP2),
    (b"P3", _PPM),
    (b"P6", _PPM),
    (b"%PDF-", _PDF),
    (b"\0\0\x01\xba", _MPEG),
)

_LOADED_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | TEXT_SUFFIXES | {".pdf"}


def detect(head: bytes) -> MediaType | None:
    """Return the type of a file.

    Args:
        head: Its first `HEAD_BYTES` bytes.

    Returns:
        The type; None if it is none that a server shows or loads by content. SVG and HTML are among those.
    """
    for prefix, media_type in _PREFIXES:
        if head.startswith(prefix):
            return media_type
    if head.startswith(b"RIFF"):
        return {b"WEBP": _WEBP, b"AVI ": _AVI}.get(head[8:12])
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in (b"avif", b"avis"):
            return _AVIF
        return _QUICKTIME if brand == b"qt  " else _MP4
    if head.startswith(b"\x1a\x45\xdf\xa3"):  # EBML; its DocType stands in the header
        return _WEBM if b"webm" in head[:64] else _MATROSKA
    return None


def suffix_for(name: str, head: bytes) -> str:
    """Return the suffix under which a file is stored, by which a `Loader` knows its type.

    Args:
        name: The file's name, or the path of its URL.
        head: Its first `HEAD_BYTES` bytes.

    Returns:
        The name's suffix if it is one that is loaded; else one for the content; empty if neither is known.
    """
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    if suffix in _LOADED_SUFFIXES:
        return suffix
    media_type = detect(head)
    return "" if media_type is None else media_type.suffix

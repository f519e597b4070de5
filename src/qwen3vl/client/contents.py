"""Contents of media as they are sent: whole files, identified by their digest, and pixels as PNG."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from qwen3vl.errors import MediaError
from qwen3vl.inputs import ImageReference, VideoReference
from qwen3vl.media.images import oriented_rgb, oriented_size
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.source import FileVersion, MediaSource, check_pixels, open_source
from qwen3vl.wire import digest_of

_PNG_LEVEL = 1
"""Compression level: higher ones take several times as long, for a few percent less."""


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """An encoded image, PDF or video.

    Attributes:
        source: The file, or its bytes.
        digest: Digest of the bytes; see `digest_of`.
        size: Number of bytes.
    """

    source: MediaSource
    digest: str
    size: int

    def load(self) -> bytes:
        """Return the bytes.

        Returns:
            Bytes with the digest of this object.

        Raises:
            MediaError: The file cannot be read, or was changed since its digest was computed.
        """
        data = self.source.data
        if isinstance(data, bytes):
            return data
        try:
            data = data.read_bytes()
        except OSError as error:
            raise _unreadable(error) from error
        if digest_of(data) != self.digest:
            raise MediaError("the file changed while it was read; try it again")
        return data


def open_content(reference: ImageReference | VideoReference, policy: MediaPolicy, *, exif: bool) -> Content:
    """Find the content of a reference. Files are read for their digest, and not kept; URLs are fetched.

    Args:
        reference: An image or a video; no list of frames.
        policy: Limits on files, addresses and sizes.
        exif: Whether images whose pixels are in memory are rotated by their EXIF orientation. Encoded ones are sent as
            they are, and rotated by the server.

    Returns:
        The content.

    Raises:
        MediaError: The file or URL cannot be read.
        PolicyError: The policy does not allow it.
    """
    if reference.origin == "pixels":
        source = MediaSource(_encode_pixels(reference.data, policy, exif=exif))
    else:
        source = open_source(reference, policy)
    if isinstance(source.encoded, bytes):
        return Content(source, digest_of(source.encoded), len(source.encoded))
    return Content(source, _file_digest(source.encoded), source.encoded.size)


def _encode_pixels(image: Image.Image, policy: MediaPolicy, *, exif: bool) -> bytes:
    """Return an image as a PNG in which the server finds the RGB values that an engine in this process would use."""
    check_pixels(*oriented_size(image, exif), policy)
    encoded = BytesIO()
    rgb = oriented_rgb(image, exif)
    Image.frombytes("RGB", rgb.size, rgb.tobytes()).save(encoded, "PNG", compress_level=_PNG_LEVEL)
    return encoded.getvalue()


@lru_cache(maxsize=4096)
def _file_digest(version: FileVersion) -> str:
    """Return the digest of a file; cached by its version, as the pages of a PDF and the parts of a video share one."""
    try:
        with Path(version.path).open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> MediaError:
    return MediaError(f"the file cannot be read: {error.strerror or error}; check its permissions")

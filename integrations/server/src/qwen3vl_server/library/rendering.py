"""The media of a document as browsers show them: thumbnails, pictures, PDF pages as pictures, and videos."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from qwen3vl.documents import Document
from qwen3vl.errors import InputError, MediaError
from qwen3vl.inputs import ImageReference, VideoReference, as_image, as_video
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.preview import contact_sheet, thumbnail
from qwen3vl.media.source import open_source
from qwen3vl_server.library.media_types import HEAD_BYTES, MediaType, detect

THUMBNAIL_SIDE = 400
"""Pixels of a thumbnail's longer side: twice the width of a hit on the page, for dense screens."""
PICTURE_SIDE = 2048
"""Pixels of the longer side of a picture that is decoded here, because browsers cannot do it."""


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """An encoded picture or video that browsers show.

    Attributes:
        content: The file's absolute path, without symbolic links, or bytes.
        media_type: The type for `Content-Type`.
    """

    content: Path | bytes
    media_type: str


def render_thumbnail(document: Document, policy: MediaPolicy) -> Shown:
    """Make a thumbnail of a document's picture, page or video.

    Args:
        document: A stored document.
        policy: What its references may reach.

    Returns:
        A JPEG. Where the media cannot be read, it is made of the thumbnail that `ingest` has stored, if there is one.

    Raises:
        InputError: The document has no media, or they cannot be read.
    """
    stored = document.metadata.get("thumbnail")
    try:
        image = _preview(document, policy)
    except InputError:
        if not isinstance(stored, str) or not stored.startswith("data:image/"):
            raise
        image = thumbnail(stored, policy, THUMBNAIL_SIDE)
    return Shown(_encode(image, "JPEG", quality=85), "image/jpeg")


def open_picture(document: Document, policy: MediaPolicy) -> Shown:
    """Return a document's picture as it was stored, or its PDF page at full size.

    Args:
        document: A stored document.
        policy: What its references may reach.

    Returns:
        The original file if browsers show its format; else a PNG.

    Raises:
        InputError: The document has no picture, or it cannot be read.
    """
    if document.image is None:
        raise MediaError("it has no picture")
    reference = as_image(document.image)
    if reference.page is None:
        content, media_type = _open(reference, policy)
        if media_type is not None and media_type.media_class == "image" and media_type.shown:
            return Shown(content, media_type.name)
    return Shown(_encode(thumbnail(reference, policy, PICTURE_SIDE), "PNG"), "image/png")


def open_video(document: Document, policy: MediaPolicy) -> Shown:
    """Return a document's video as it was stored, as a whole.

    Args:
        document: A stored document.
        policy: What its references may reach.

    Returns:
        The original file.

    Raises:
        InputError: The document has no video, or it cannot be read.
    """
    if document.video is None:
        raise MediaError("it has no video")
    return _as_shown_video(*_open(as_video(document.video), policy))


def as_shown_video(content: bytes) -> Shown:
    """Return a video that is in memory.

    Args:
        content: The file.

    Returns:
        The file, as `open_video` returns it.

    Raises:
        MediaError: It is no video.
    """
    return _as_shown_video(content, detect(content[:HEAD_BYTES]))


def _as_shown_video(content: Path | bytes, media_type: MediaType | None) -> Shown:
    if media_type is None or media_type.media_class != "video":
        raise MediaError("the file is no video of a type that browsers may play")
    return Shown(content, media_type.name)


def _preview(document: Document, policy: MediaPolicy) -> Image.Image:
    if document.video is not None:
        return contact_sheet(document.video, policy, THUMBNAIL_SIDE)
    if document.image is None:
        raise MediaError("it has no picture and no video")
    return thumbnail(document.image, policy, THUMBNAIL_SIDE)


def _open(reference: ImageReference | VideoReference, policy: MediaPolicy) -> tuple[Path | bytes, MediaType | None]:
    content = open_source(reference, policy).data
    if isinstance(content, bytes):
        return content, detect(content[:HEAD_BYTES])
    try:
        with content.open("rb") as file:
            return content, detect(file.read(HEAD_BYTES))
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror or error}; check its permissions") from error


def _encode(image: Image.Image, image_format: str, **options: int) -> bytes:
    encoded = BytesIO()
    image.save(encoded, image_format, **options)
    return encoded.getvalue()

"""Thumbnails of images, PDF pages and videos, for people to look at."""

from __future__ import annotations

import base64
import logging
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from qwen3vl.documents import Document
from qwen3vl.inputs import as_image, as_video
from qwen3vl.media.images import read_image_header
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.media.videos import read_video_header
from qwen3vl.types import Pixels

log = logging.getLogger(__name__)

MAX_SIDE = 240
"""Pixels of a thumbnail's longer side."""
SHEET_COLUMNS = SHEET_ROWS = 2
"""Frames in each row and column of a video's contact sheet."""
SHEET_GAP = 2
"""Pixels between the frames of a contact sheet."""
JPEG_QUALITIES = (85, 60, 35)
"""Tried in this order where the encoded size is limited."""
_MIN_SIDE = 16
"""Pixels; images are not shrunk below this to fit a size limit."""


def preview(document: Document, policy: MediaPolicy = DEFAULT_POLICY, side: int = MAX_SIDE) -> Image.Image | None:
    """Return a thumbnail of what a document shows.

    Args:
        document: Any document.
        policy: Limits on files, addresses and sizes.
        side: Maximum width and height in pixels.

    Returns:
        The thumbnail; None for text, and, with a warning in the log, if the media cannot be read any more.
    """
    try:
        if document.video is not None:
            return contact_sheet(document.video, policy, side)
        return None if document.image is None else thumbnail(document.image, policy, side)
    except Exception as error:  # the file may have been removed or changed since it was embedded
        log.warning("no preview of %s: %s", document.name, error)
        return None


def thumbnail(reference: Any, policy: MediaPolicy = DEFAULT_POLICY, side: int = MAX_SIDE) -> Image.Image:
    """Return a thumbnail of an image or PDF page.

    Args:
        reference: An image, as `as_image` accepts it.
        policy: Limits on files, addresses and sizes.
        side: Maximum width and height in pixels.

    Returns:
        An RGB image.

    Raises:
        InputError: The image cannot be read.
    """
    header = read_image_header(as_image(reference), policy, exif=True)
    scale = min(1.0, side / max(header.width, header.height))
    size = (max(1, round(header.height * scale)), max(1, round(header.width * scale)))
    return Image.fromarray(header.load(size))


def contact_sheet(reference: Any, policy: MediaPolicy = DEFAULT_POLICY, side: int = MAX_SIDE) -> Image.Image:
    """Return frames of a video, evenly spaced in time, in rows on one image.

    Args:
        reference: A video file, as `as_video` accepts it.
        policy: Limits on files, addresses and sizes.
        side: Maximum width and height in pixels, without the gaps between frames.

    Returns:
        An RGB image.

    Raises:
        InputError: The video cannot be read.
    """
    header = read_video_header(as_video(reference), policy)
    num_frames = SHEET_COLUMNS * SHEET_ROWS
    step = (header.last_frame - header.first_frame) / (num_frames - 1)
    frame_indices = sorted({header.first_frame + round(step * number) for number in range(num_frames)})

    def shrink(frame: Pixels) -> Pixels:
        image = Image.fromarray(frame)
        image.thumbnail((side // SHEET_COLUMNS, side // SHEET_ROWS))
        return np.asarray(image)

    frames = [Image.fromarray(frame) for frame in header.load(frame_indices, shrink)]
    width, height = frames[0].size
    sheet_width = SHEET_COLUMNS * (width + SHEET_GAP) - SHEET_GAP
    sheet_height = SHEET_ROWS * (height + SHEET_GAP) - SHEET_GAP
    sheet = Image.new("RGB", (sheet_width, sheet_height), "white")
    for number, frame in enumerate(frames):
        row, column = divmod(number, SHEET_COLUMNS)
        sheet.paste(frame, (column * (width + SHEET_GAP), row * (height + SHEET_GAP)))
    return sheet


def data_uri(image: Image.Image, max_characters: int | None = None) -> str | None:
    """Encode an image as a JPEG in a data URI.

    Args:
        image: An RGB image.
        max_characters: Maximum length of the URI. The quality is lowered first, then the size is halved, until it
            fits. None sets no limit.

    Returns:
        The data URI; None if even a tiny image of low quality does not fit.
    """
    while True:
        for quality in JPEG_QUALITIES[:1] if max_characters is None else JPEG_QUALITIES:
            encoded = BytesIO()
            image.save(encoded, "JPEG", quality=quality)
            uri = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
            if max_characters is None or len(uri) <= max_characters:
                return uri
        if max(image.size) < _MIN_SIDE:
            return None
        image = image.resize([max(1, side // 2) for side in image.size])

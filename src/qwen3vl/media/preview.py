"""Small pictures of pictures, pages and clips, for people to look at."""

from __future__ import annotations

import base64
import logging
from io import BytesIO
from typing import Any

from PIL import Image

from qwen3vl.documents import Document
from qwen3vl.inputs import as_image, as_video
from qwen3vl.media.images import read_image_header
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.media.videos import read_video_header

log = logging.getLogger(__name__)
SIDE = 240
"""Pixels of the longer side."""
FRAMES = 4
"""Frames that stand for a clip."""
QUALITIES = (85, 60, 35)


def preview(document: Document, policy: MediaPolicy = DEFAULT_POLICY, side: int = SIDE) -> Image.Image | None:
    """A small picture of what a document shows; None for text, and where its media cannot be read any more."""
    try:
        if document.video is not None:
            return contact_sheet(document.video, policy, side)
        return None if document.image is None else still(document.image, policy, side)
    except Exception as error:  # the file may have gone or changed since it was embedded
        log.warning("no preview of %s: %s", document.name, error)
        return None


def still(reference: Any, policy: MediaPolicy = DEFAULT_POLICY, side: int = SIDE) -> Image.Image:
    """A picture or page, no side longer than `side` pixels."""
    picture = read_image_header(as_image(reference), policy).load()
    picture.thumbnail((side, side))
    return picture


def contact_sheet(reference: Any, policy: MediaPolicy = DEFAULT_POLICY, side: int = SIDE) -> Image.Image:
    """Frames of a clip, evenly spread, side by side in a square of two rows."""
    header = read_video_header(as_video(reference), policy)
    step = (header.last - header.first) / (FRAMES - 1)
    places = sorted({header.first + round(step * number) for number in range(FRAMES)})
    frames = [Image.fromarray(frame.numpy()) for frame in header.load(places)]
    for frame in frames:
        frame.thumbnail((side // 2, side // 2))
    width, height = frames[0].size
    sheet = Image.new("RGB", (2 * width + 2, 2 * height + 2), "white")
    for number, frame in enumerate(frames):
        sheet.paste(frame, (number % 2 * (width + 2), number // 2 * (height + 2)))
    return sheet


def data_uri(picture: Image.Image, most: int | None = None) -> str | None:
    """A JPEG as a data URI, of at most `most` characters; None where it would not fit even small and coarse."""
    while True:
        for quality in QUALITIES[:1] if most is None else QUALITIES:
            encoded = BytesIO()
            picture.save(encoded, "JPEG", quality=quality)
            uri = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"
            if most is None or len(uri) <= most:
                return uri
        if max(picture.size) < 16:
            return None
        picture = picture.resize([max(1, side // 2) for side in picture.size])

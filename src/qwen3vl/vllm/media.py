"""Images and videos as parts of chat messages: pixels at their final size, in which vLLM has nothing left to resize."""

from __future__ import annotations

import base64
from collections.abc import Hashable, MutableMapping
from io import BytesIO
from typing import Any

from PIL import Image

from qwen3vl.errors import error_source
from qwen3vl.processing.geometry import FRAME_LIST_FPS
from qwen3vl.processing.sizing import SizedMedia, UnsizedImage, UnsizedMedia, UnsizedVideo
from qwen3vl.types import Pixels

_PNG_LEVEL = 1
"""Compression level: higher ones take several times as long, for a few percent less."""
KEEP_SIZES = {"mm_processor_kwargs": {"size": {"shortest_edge": 1, "longest_edge": 2**31 - 1}}}
"""Field of a request that makes vLLM keep the size of every image and frame. It needs `--trust-request-mm-kwargs`."""

Urls = MutableMapping[Hashable, str]
"""Data URIs by the key of an image or video at its size."""


def encode_media(media: SizedMedia, kept: Urls, *, keep: bool) -> dict[str, Any]:
    """Decode an image or video, and encode its pixels as a part of a message.

    Args:
        media: The image or video.
        kept: Data URIs that were encoded before.
        keep: Whether to add this one to them.

    Returns:
        The part.

    Raises:
        InputError: It cannot be decoded; it is named in `InputError.source`.
    """
    kind = "video_url" if media.vision.timestamps else "image_url"
    url = kept.get(media.vision.key)
    if url is None:
        with error_source(media.name):
            frames = media.load()
        # The type is what makes vLLM take a list of frames. It does not look at it again: frames are PNG, which is
        # lossless.
        media_type = "video/jpeg" if media.vision.timestamps else "image/png"
        url = f"data:{media_type};base64,{','.join(map(_encode_frame, frames))}"
        if keep:
            kept[media.vision.key] = url
    return {"type": kind, kind: {"url": url}}


def frame_times(video: UnsizedMedia) -> dict[str, Any] | None:
    """Return what tells vLLM when the frames of a video were recorded.

    Args:
        video: An image or video.

    Returns:
        Frame rate and indices, as `media_io_kwargs` has them; None for an image.
    """
    if isinstance(video, UnsizedImage):
        return None
    if isinstance(video, UnsizedVideo):
        frame_rate, indices = float(video.header.timeline.frame_rate), list(video.frame_indices)
    else:
        frame_rate, indices = FRAME_LIST_FPS, list(range(len(video.frames)))
    return {"num_frames": -1, "fps": frame_rate, "frames_indices": indices, "total_num_frames": indices[-1] + 1}


def _encode_frame(pixels: Pixels) -> str:
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG", compress_level=_PNG_LEVEL)
    return base64.b64encode(encoded.getvalue()).decode()

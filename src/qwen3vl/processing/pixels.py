"""Resizes decoded images and frames, and cuts them into the patches that the vision tower reads.

Resizing gives the bits of the reference: Pillow's bicubic filter for images, torch's bicubic filter with antialiasing,
rounded to uint8, for frames of videos. Pixels move to the device as uint8; they are normalized and cut there.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from qwen3vl.processing.geometry import (
    FRAME_FACTOR,
    IMAGE_FACTOR,
    PATCH_SIZE,
    SPATIAL_MERGE_SIZE,
)

_STRIP_ROWS = 512
"""Rows of a frame that are in float32 at once while it is resized."""
_MEAN = _STD = 127.5
"""`image_mean` and `image_std` of Qwen3-VL's `preprocessor_config.json`, 0.5, for values from 0 to 255."""


def resize_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize frames with torch's bicubic filter with antialiasing, as torchvision does.

    Args:
        frames: Pixels, (num_frames, any height, any width, 3) uint8.
        height: Rows of the result.
        width: Pixels per row of the result.

    Returns:
        Pixels, (num_frames, height, width, 3) uint8; `frames` itself if it has this size.
    """
    if frames.shape[1:3] == (height, width):
        return frames
    resized = torch.empty((len(frames), height, width, 3), dtype=torch.uint8)
    for frame, resized_frame in zip(frames, resized, strict=True):
        for channel in range(3):
            resized_frame[..., channel] = _resize_channel(frame[..., channel], height, width)
    return resized


def resize_frame_array(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize one frame like `resize_frames`, from NumPy to NumPy.

    Args:
        frame: Pixels, (any height, any width, 3) uint8.
        height: Rows of the result.
        width: Pixels per row of the result.

    Returns:
        Pixels, (height, width, 3) uint8.
    """
    return resize_frames(torch.from_numpy(frame)[None], height, width)[0].numpy()


def _resize_channel(channel: Tensor, height: int, width: int) -> Tensor:
    """Resize one colour channel of a frame, (any height, any width) uint8.

    The widths first, `_STRIP_ROWS` rows at a time, then the heights: these are the steps of one call of `interpolate`
    for the whole frame, whose float32 copy would be four times as large as the frame.
    """
    rows = torch.empty((channel.shape[0], width))
    # Into one tensor: results of many calls, kept between their temporary ones, would fragment the memory.
    for first in range(0, channel.shape[0], _STRIP_ROWS):
        strip = channel[first : first + _STRIP_ROWS]
        rows[first : first + _STRIP_ROWS] = _interpolate(strip.float(), strip.shape[0], width)
    return _interpolate(rows, height, width).clamp(0, 255).round().to(torch.uint8)


def _interpolate(values: Tensor, height: int, width: int) -> Tensor:
    if values.shape == (height, width):
        return values
    return interpolate(values[None, None], (height, width), mode="bicubic", align_corners=False, antialias=True)[0, 0]


def patches(pixels: Tensor) -> Tensor:
    """Normalize pixels and cut them into patches, in the order of transformers' `Qwen2VLImageProcessor`.

    An image, or a last frame without a partner, is paired with itself. The four patches of a merged block are
    neighbours in the result.

    Args:
        pixels: Pixels, (num_frames, height, width, 3) uint8; height and width are multiples of `IMAGE_FACTOR`.

    Returns:
        One row of channel, frame, y and x values in [-1, 1] for each patch, float32,
        (frame pairs * height / 16 * width / 16, 3 * 2 * 16 * 16).
    """
    if pixels.shape[0] % FRAME_FACTOR:
        pixels = torch.cat((pixels, pixels[-1:]))
    num_frames, height, width, channels = pixels.shape
    values = pixels.float().sub_(_MEAN).div_(_STD)
    blocks = values.view(
        num_frames // FRAME_FACTOR,
        FRAME_FACTOR,
        height // IMAGE_FACTOR,
        SPATIAL_MERGE_SIZE,
        PATCH_SIZE,
        width // IMAGE_FACTOR,
        SPATIAL_MERGE_SIZE,
        PATCH_SIZE,
        channels,
    )
    # frame pair, frame, block row, patch row, y, block column, patch column, x, channel -> one row for each patch
    rows = blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return rows.reshape(num_frames // FRAME_FACTOR * height * width // PATCH_SIZE**2, -1)

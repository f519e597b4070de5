"""From decoded pictures to the rows of patches that the vision tower reads.

Resizing follows the reference to the bit: Pillow's bicubic for pictures; for clips torch's bicubic with
antialiasing, rounded to uint8.  What moves to the device is uint8; normalising and cutting happen there.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from qwen3vl.processing.geometry import FACTOR, FRAMES_PER_TOKEN, MERGE, PATCH, smart_resize

FRAME_LIST_FACTOR = 2 * FACTOR
"""The reference first resizes the frames of a list to multiples of twice the factor."""
FRAME_LIST_MAX_PIXELS = 16384 * FRAME_LIST_FACTOR**2


def rgb(picture: Image.Image) -> Image.Image:
    """RGB as the reference makes it: RGBA over white, every other mode converted as it is."""
    if picture.mode == "RGBA":
        white = Image.new("RGB", picture.size, (255, 255, 255))
        white.paste(picture, mask=picture.getchannel("A"))
        return white
    return picture.convert("RGB")


def resize_image(picture: Image.Image, height: int, width: int) -> Tensor:
    """An RGB picture as uint8 (1, height, width, 3)."""
    return torch.from_numpy(np.array(picture.resize((width, height)))).unsqueeze(0)


def frame_list_size(width: int, height: int) -> tuple[int, int]:
    """(height, width) to which the reference first resizes each frame of a list."""
    least = 4 * FRAME_LIST_FACTOR**2
    return smart_resize(width, height, least, FRAME_LIST_MAX_PIXELS, factor=FRAME_LIST_FACTOR)


def resize_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """uint8 (frames, any height, any width, 3) as uint8 (frames, height, width, 3)."""
    if frames.shape[1:3] == (height, width):
        return frames
    # A frame at a time: a whole clip in float32 would be four times its decoded size.
    return torch.cat([_resize_frame(frame, height, width) for frame in frames.unsqueeze(1)])


def _resize_frame(frame: Tensor, height: int, width: int) -> Tensor:
    values = frame.permute(0, 3, 1, 2).float()
    values = interpolate(values, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    return values.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def patches(pixels: Tensor) -> Tensor:
    """uint8 (frames, height, width, 3) as float32 rows of (channel, frame, y, x) values in [-1, 1].

    A single picture stands for both frames of a pair.  Rows follow the merge blocks: all patches of a
    2 x 2 block are neighbours.  Shape: (pairs * height / 16 * width / 16, 3 * 2 * 16 * 16).
    """
    if pixels.shape[0] % FRAMES_PER_TOKEN:
        pixels = torch.cat((pixels, pixels[-1:]))
    frames, height, width, channels = pixels.shape
    values = (pixels.float() - 127.5) / 127.5
    blocks = values.view(
        frames // FRAMES_PER_TOKEN,
        FRAMES_PER_TOKEN,
        height // FACTOR,
        MERGE,
        PATCH,
        width // FACTOR,
        MERGE,
        PATCH,
        channels,
    )
    # pair, frame, block row, row, y, block column, column, x, channel -> one row of values a patch
    rows = blocks.permute(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return rows.reshape(frames // FRAMES_PER_TOKEN * height * width // PATCH**2, -1)

"""Sizes and frames that the models see: the rules of qwen-vl-utils 0.0.14 for 16-pixel patches.

A merged token covers FACTOR x FACTOR pixels; a clip's token covers that in two frames at once.  The rules
stand here, and are held against that package by the tests, since importing it brings torchvision and seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qwen3vl.errors import MediaError
from qwen3vl.types import Grid

PATCH = 16
MERGE = 2
FACTOR = PATCH * MERGE
TOKEN_PIXELS = FACTOR * FACTOR
FRAMES_PER_TOKEN = 2
FRAME_LIST_FPS = 2.0
"""The rate at which the reference takes a list of frames to have been filmed."""
MIN_FRAME_PIXELS = 128 * TOKEN_PIXELS
MAX_FRAME_PIXELS = 768 * TOKEN_PIXELS
MIN_CLIP_FRAMES = 4
MAX_RATIO = 200
"""Of a picture's sides to each other."""


@dataclass(frozen=True)
class Limits:
    """What bounds a prompt: tokens in all, pixels a picture, pixels and frames a clip.

    The defaults are those of the official embedding script.
    """

    max_length: int = 8192
    min_pixels: int = 4 * TOKEN_PIXELS
    max_pixels: int = 1800 * TOKEN_PIXELS
    total_pixels: int = 10 * MAX_FRAME_PIXELS
    fps: float = 1.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) must be between 1 and max_pixels ({self.max_pixels})")
        if self.max_length < 64:
            raise ValueError(f"max_length is {self.max_length}; the prompt's frame alone needs about 64 tokens")
        if self.total_pixels < 1 or self.fps <= 0 or self.max_frames < FRAMES_PER_TOKEN:
            raise ValueError(
                f"total_pixels ({self.total_pixels}) and fps ({self.fps}) must be positive, and max_frames "
                f"({self.max_frames}) at least {FRAMES_PER_TOKEN}"
            )


def smart_resize(width: int, height: int, min_pixels: int, max_pixels: float, factor: int = FACTOR) -> tuple[int, int]:
    """(height, width) to which a picture is resized: multiples of `factor` between the pixel limits.

    Raises `MediaError` where one side is more than 200 times the other.
    """
    ratio = max(width, height) / max(min(width, height), 1)
    if ratio > MAX_RATIO:
        raise MediaError(
            f"its sides are {width} x {height}: one is {ratio:.0f} times the other and the model takes at most "
            f"{MAX_RATIO}; crop the picture or cut it into tiles"
        )
    rounded = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if math.prod(rounded) > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        # A long strip may come out thinner than a patch, where the reference fails.
        rounded = [max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)]
    elif math.prod(rounded) < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rounded = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return rounded[0], rounded[1]


def video_frame_size(width: int, height: int, frames: int, total_pixels: float | None) -> tuple[int, int]:
    """(height, width) of a clip's frames; `total_pixels` spreads over all of them, where it is given."""
    most: float = MAX_FRAME_PIXELS
    if total_pixels is not None:
        most = max(min(most, total_pixels / frames * FRAMES_PER_TOKEN), int(MIN_FRAME_PIXELS * 1.05))
    return smart_resize(width, height, MIN_FRAME_PIXELS, most)


def sample_video_frames(first: int, count: int, rate: float, fps: float, max_frames: int) -> list[int]:
    """Which of `count` frames from `first` on, filmed at `rate` a second, are looked at."""
    if count < FRAMES_PER_TOKEN:
        raise MediaError(f"the clip has {count} frame(s) and the model needs {FRAMES_PER_TOKEN}; send it as a picture")
    most = max_frames // FRAMES_PER_TOKEN * FRAMES_PER_TOKEN
    wanted = min(max(count / rate * fps, MIN_CLIP_FRAMES), most, count)
    sampled = math.floor(wanted / FRAMES_PER_TOKEN) * FRAMES_PER_TOKEN
    # torch's own float32 linspace, as the official script: its rounding, which depends on the processor's vector
    # width, decides between two frames.  Imported here, so that this module is imported without torch.
    import torch

    places: list[int] = torch.linspace(first, first + count - 1, sampled).round().long().tolist()
    return places


def sample_frame_list(total: int, max_frames: int) -> list[int]:
    """Which of a list of frames are looked at; an odd last frame stands twice."""
    places = list(range(total))
    if total > max_frames:
        step = (total - 1) / (max_frames - 1)
        places = [int(step * index) for index in range(max_frames - 1)] + [total - 1]
    return places + places[-1:] * (len(places) % FRAMES_PER_TOKEN)


def seconds(places: Sequence[int], rate: float) -> tuple[float, ...]:
    """The time of each pair of frames: the middle between the two."""
    return tuple((first + second) / 2 / rate for first, second in zip(places[::2], places[1::2], strict=True))


def patch_grid(height: int, width: int, frames: int = FRAMES_PER_TOKEN) -> Grid:
    """The patches of `frames` frames of height x width pixels: (pairs, rows, columns)."""
    return math.ceil(frames / FRAMES_PER_TOKEN), height // PATCH, width // PATCH


def num_tokens(grid: Grid) -> int:
    """Tokens that a picture or clip takes in the prompt, without its frame."""
    return math.prod(grid) // MERGE**2

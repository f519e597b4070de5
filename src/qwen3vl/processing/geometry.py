"""Sizes of images and frames, and sampling of frames, as in qwen-vl-utils 0.0.14, `vision_process.py`.

Constants have the names they have there. The rules are implemented here because importing that package imports
torchvision and takes seconds; the tests compare both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from qwen3vl.errors import MediaError
from qwen3vl.types import Grid

PATCH_SIZE = 16
"""Pixels along each side of a patch: `patch_size` of Qwen3-VL's `config.json`."""
SPATIAL_MERGE_SIZE = 2
"""Patches along each side of the block that becomes one token."""
IMAGE_FACTOR = PATCH_SIZE * SPATIAL_MERGE_SIZE
"""Pixels along each side of the area that one token covers; heights and widths are multiples of it."""
PIXELS_PER_TOKEN = IMAGE_FACTOR**2
"""Pixels that one token covers in an image; in a video it covers as many in each of two frames."""
FRAME_FACTOR = 2
"""Frames that one token of a video covers: `temporal_patch_size` of Qwen3-VL's `config.json`."""
FPS_MIN_FRAMES = 4
"""Minimum number of frames sampled from a video file, if it has as many."""
MAX_RATIO = 200
"""Maximum ratio of an image's longer side to its shorter side."""
IMAGE_MIN_TOKEN_NUM = 4
VIDEO_MIN_TOKEN_NUM = 128
VIDEO_MAX_TOKEN_NUM = 768
VIDEO_FRAME_MIN_PIXELS = VIDEO_MIN_TOKEN_NUM * PIXELS_PER_TOKEN
VIDEO_FRAME_MAX_PIXELS = VIDEO_MAX_TOKEN_NUM * PIXELS_PER_TOKEN
FRAME_LIST_FACTOR = 2 * IMAGE_FACTOR
"""Frames of a list are first resized to multiples of this many pixels: qwen-vl-utils' `fetch_video` passes
`image_factor` where `fetch_image` expects a patch size, which it doubles again."""
IMAGE_MAX_TOKEN_NUM = 16384
"""Maximum tokens of an image in `fetch_image` of qwen-vl-utils 0.0.14, `vision_process.py`, by default. For frames
of a list, each token counts as `FRAME_LIST_FACTOR ** 2` pixels."""
FRAME_LIST_FPS = 2.0
"""Frame rate at which a list of frames counts as recorded: `sample_fps` in `fetch_video`."""
MIN_MAX_LENGTH = 64
"""Tokens; the prompt templates alone need about as many."""


@dataclass(frozen=True)
class Limits:
    """Limits of a prompt and its media.

    The defaults are those of QwenLM/Qwen3-VL-Embedding, `src/models/qwen3_vl_embedding.py`.

    Attributes:
        max_length: Maximum number of tokens of a prompt.
        min_pixels: Minimum number of pixels of an image; smaller ones are enlarged.
        max_pixels: Maximum number of pixels of an image; larger ones are shrunk.
        total_pixels: Maximum number of pixels of a list of frames together; see `video_frame_size`. A video file is
            only held to it if its prompt is longer than `max_length`.
        fps: Frames per second that are sampled from a video file.
        max_frames: Maximum number of frames that are sampled from a video file or a list of frames.

    Raises:
        ValueError: A value is out of its range.
    """

    max_length: int = 8192
    min_pixels: int = IMAGE_MIN_TOKEN_NUM * PIXELS_PER_TOKEN
    max_pixels: int = 1800 * PIXELS_PER_TOKEN
    total_pixels: int = 10 * VIDEO_FRAME_MAX_PIXELS
    fps: float = 1.0
    max_frames: int = 64

    def __post_init__(self) -> None:
        if not 1 <= self.min_pixels <= self.max_pixels:
            raise ValueError(f"min_pixels ({self.min_pixels}) must be between 1 and max_pixels ({self.max_pixels})")
        if self.max_length < MIN_MAX_LENGTH:
            raise ValueError(
                f"max_length is {self.max_length}; it must be at least {MIN_MAX_LENGTH}, which the prompt template "
                "alone needs"
            )
        if self.total_pixels < 1 or self.fps <= 0 or self.max_frames < FRAME_FACTOR:
            raise ValueError(
                f"total_pixels ({self.total_pixels}) and fps ({self.fps}) must be positive, and max_frames "
                f"({self.max_frames}) at least {FRAME_FACTOR}"
            )


def smart_resize(
    width: int, height: int, min_pixels: int, max_pixels: float, factor: int = IMAGE_FACTOR
) -> tuple[int, int]:
    """Return the size to which an image is resized; `smart_resize` of qwen-vl-utils.

    A long and thin image may come out with a side of one `factor`, where the original fails.

    Args:
        width: Pixels per row.
        height: Number of rows.
        min_pixels: Minimum number of pixels of the result.
        max_pixels: Maximum number of pixels of the result, except that no side is less than `factor`.
        factor: Both sides of the result are multiples of it.

    Returns:
        Height and width.

    Raises:
        MediaError: One side is more than `MAX_RATIO` times the other.
    """
    ratio = max(width, height) / max(min(width, height), 1)
    if ratio > MAX_RATIO:
        raise MediaError(
            f"its sides are {width} x {height}: one is {ratio:.0f} times the other and the model takes at most "
            f"{MAX_RATIO}; crop the image or cut it into tiles"
        )
    sides = [max(factor, round(side / factor) * factor) for side in (height, width)]
    if math.prod(sides) > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        sides = [max(factor, math.floor(side / shrink / factor) * factor) for side in (height, width)]
    elif math.prod(sides) < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        sides = [math.ceil(side * grow / factor) * factor for side in (height, width)]
    return sides[0], sides[1]


def frame_list_size(width: int, height: int) -> tuple[int, int]:
    """Return the size to which `fetch_video` of qwen-vl-utils first resizes each frame of a list.

    Args:
        width: Pixels per row.
        height: Number of rows.

    Returns:
        Height and width.

    Raises:
        MediaError: One side is too long in relation to the other.
    """
    min_pixels = IMAGE_MIN_TOKEN_NUM * FRAME_LIST_FACTOR**2
    max_pixels = IMAGE_MAX_TOKEN_NUM * FRAME_LIST_FACTOR**2
    return smart_resize(width, height, min_pixels, max_pixels, factor=FRAME_LIST_FACTOR)


def video_frame_size(width: int, height: int, num_frames: int, total_pixels: float | None) -> tuple[int, int]:
    """Return the size to which the frames of a video are resized, as in `fetch_video` of qwen-vl-utils.

    Args:
        width: Pixels per row of a frame.
        height: Number of rows of a frame.
        num_frames: Number of sampled frames.
        total_pixels: Maximum number of pixels of all frames together, where a pair counts as one frame. Each frame may
            have about `VIDEO_FRAME_MIN_PIXELS` in any case, and `VIDEO_FRAME_MAX_PIXELS` at most; None sets no other
            limit.

    Returns:
        Height and width.

    Raises:
        MediaError: One side is more than `MAX_RATIO` times the other.
    """
    max_pixels: float = VIDEO_FRAME_MAX_PIXELS
    if total_pixels is not None:
        max_pixels = max(min(max_pixels, total_pixels / num_frames * FRAME_FACTOR), int(VIDEO_FRAME_MIN_PIXELS * 1.05))
    return smart_resize(width, height, VIDEO_FRAME_MIN_PIXELS, max_pixels)


def sample_video_frames(first_frame: int, num_frames: int, frame_rate: float, fps: float, max_frames: int) -> list[int]:
    """Choose the frames of a video file, as `smart_nframes` and the video readers of qwen-vl-utils do.

    Args:
        first_frame: Index of the first frame to choose from.
        num_frames: Number of frames to choose from.
        frame_rate: Frames per second of the video.
        fps: Frames per second to sample; at least `FPS_MIN_FRAMES` frames in all, if there are as many.
        max_frames: Maximum number of frames to sample.

    Returns:
        Indices of the sampled frames, evenly spaced; an even number of them.

    Raises:
        MediaError: There are fewer than two frames.
    """
    if num_frames < FRAME_FACTOR:
        raise MediaError(f"the video has {num_frames} frame(s) and the model needs {FRAME_FACTOR}; send it as an image")
    even_max_frames = max_frames // FRAME_FACTOR * FRAME_FACTOR
    target = min(max(num_frames / frame_rate * fps, FPS_MIN_FRAMES), even_max_frames, num_frames)
    num_samples = math.floor(target / FRAME_FACTOR) * FRAME_FACTOR
    # The readers use torch's float32 linspace, whose rounding (it depends on the processor's vector width) decides
    # between neighbouring frames. Imported here, so that this module can be imported without torch.
    import torch

    frame_indices = torch.linspace(first_frame, first_frame + num_frames - 1, num_samples).round().long()
    return frame_indices.tolist()


def sample_frame_list(num_frames: int, max_frames: int) -> list[int]:
    """Choose frames from a list of them, as `sample_frames` in `src/models/qwen3_vl_embedding.py` does.

    Args:
        num_frames: Length of the list.
        max_frames: Maximum number of frames to choose.

    Returns:
        Indices of the chosen frames, evenly spaced; if their number is odd, the last one is repeated, even beyond
        `max_frames`.
    """
    frame_indices = list(range(num_frames))
    if num_frames > max_frames:
        step = (num_frames - 1) / (max_frames - 1)
        frame_indices = [int(step * number) for number in range(max_frames - 1)] + [num_frames - 1]
    return frame_indices + frame_indices[-1:] * (len(frame_indices) % FRAME_FACTOR)


def pair_timestamps(frame_indices: Sequence[int], frame_rate: float) -> tuple[float, ...]:
    """Return the time of each pair of frames, as `_calculate_timestamps` of transformers' `Qwen3VLProcessor` does.

    Args:
        frame_indices: Indices of the sampled frames; an even number of them.
        frame_rate: Frames per second of the video.

    Returns:
        The mean time of each pair in seconds.
    """
    pairs = zip(frame_indices[::2], frame_indices[1::2], strict=True)
    return tuple((first + second) / 2 / frame_rate for first, second in pairs)


def patch_grid(height: int, width: int, num_frames: int = FRAME_FACTOR) -> Grid:
    """Return the size of an image or video in patches.

    Args:
        height: Rows of pixels, a multiple of `IMAGE_FACTOR`.
        width: Pixels per row, a multiple of `IMAGE_FACTOR`.
        num_frames: Number of frames; an image counts as a pair of equal ones.

    Returns:
        Frame pairs, rows and columns of patches.
    """
    return math.ceil(num_frames / FRAME_FACTOR), height // PATCH_SIZE, width // PATCH_SIZE


def num_tokens(grid: Grid) -> int:
    """Return how many tokens an image or video takes in the prompt, without the control tokens around it.

    Args:
        grid: Its size in patches.

    Returns:
        One token for each merged block of patches.
    """
    return math.prod(grid) // SPATIAL_MERGE_SIZE**2

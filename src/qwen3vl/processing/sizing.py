"""Reads the headers of an item's media, and resolves the sizes at which the model sees them, before any is decoded."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qwen3vl.errors import InputError, MediaError, PolicyError, error_source
from qwen3vl.inputs import ImageReference, Item, VideoReference
from qwen3vl.media.images import ImageHeader, read_image_header
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.source import check_frame_list
from qwen3vl.processing.geometry import (
    FRAME_FACTOR,
    FRAME_LIST_FPS,
    PIXELS_PER_TOKEN,
    Limits,
    frame_list_size,
    num_tokens,
    pair_timestamps,
    patch_grid,
    sample_frame_list,
    sample_video_frames,
    smart_resize,
    video_frame_size,
)
from qwen3vl.processing.templates import PromptContent, VisionPart

if TYPE_CHECKING:  # imports PyAV, which would delay the start of every process
    from qwen3vl.media.videos import VideoHeader

_MIN_TOKENS = 3
"""Tokens of an image or a frame pair at least: one that shows it, and the two control tokens around it."""


@dataclass(frozen=True, slots=True, eq=False)
class SizedMedia:
    """An image or video whose size in the prompt is decided.

    Attributes:
        name: The media in error messages.
        vision: The media as a part of the prompt.
        load: Decodes and resizes it to pixels, (num_frames, height, width, 3) uint8. It may be called on any thread,
            and raises `MediaError` if the file is broken.
        buffered_bytes: Size of the encoded files that are kept in memory for `load`, in bytes.
    """

    name: str
    vision: VisionPart
    load: Callable[[], NDArray[np.uint8]]
    buffered_bytes: int

    @property
    def num_tokens(self) -> int:
        """Number of tokens in the prompt, without the control tokens around them."""
        return num_tokens(self.vision.grid)


@dataclass(frozen=True, slots=True, eq=False)
class UnsizedImage:
    """An image whose header was read.

    Attributes:
        name: The image in error messages.
        header: The header.
        limits: Limits on the number of pixels.
    """

    name: str
    header: ImageHeader
    limits: Limits

    def resolve_size(self, max_tokens: int | None = None) -> SizedMedia:
        """Decide the size.

        Args:
            max_tokens: Maximum number of tokens, besides the limits; None means the limits alone.

        Returns:
            The image at that size.

        Raises:
            MediaError: The image is too long in relation to its width.
        """
        max_pixels = self.limits.max_pixels
        if max_tokens is not None:
            max_pixels = min(max_pixels, max_tokens * PIXELS_PER_TOKEN)
        min_pixels = min(self.limits.min_pixels, max_pixels)
        height, width = smart_resize(self.header.width, self.header.height, min_pixels, max_pixels)
        vision = VisionPart((self.header.identity, height, width), patch_grid(height, width))

        def load() -> NDArray[np.uint8]:
            return self.header.load((height, width))[None]

        return SizedMedia(self.name, vision, load, self.header.buffered_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class UnsizedVideo:
    """A video file whose container was read.

    Attributes:
        name: The video in error messages.
        header: The header.
        frame_indices: Indices of the sampled frames.
        limits: Limits on the number of pixels.
    """

    name: str
    header: VideoHeader
    frame_indices: tuple[int, ...]
    limits: Limits

    @property
    def num_pairs(self) -> int:
        """Number of frame pairs."""
        return len(self.frame_indices) // FRAME_FACTOR

    def resolve_size(self, max_tokens: int | None = None) -> SizedMedia:
        """Decide the size of the frames.

        Args:
            max_tokens: Maximum number of tokens. Frames have a least size (see `video_frame_size`), so there may be
                more. None means the size of the official script, which does not apply its limit on the pixels of all
                frames to files.

        Returns:
            The video at that size.

        Raises:
            MediaError: The frames are too long in relation to their width.
        """
        total_pixels = None
        if max_tokens is not None:
            total_pixels = min(self.limits.total_pixels, max_tokens * PIXELS_PER_TOKEN)
        timeline = self.header.timeline
        height, width = video_frame_size(timeline.width, timeline.height, len(self.frame_indices), total_pixels)
        vision = VisionPart(
            (self.header.identity, self.frame_indices, height, width),
            patch_grid(height, width, len(self.frame_indices)),
            pair_timestamps(self.frame_indices, timeline.frame_rate),
        )

        def load() -> NDArray[np.uint8]:
            from qwen3vl.processing.pixels import resize_frame_array  # imports torch

            return self.header.load(self.frame_indices, partial(resize_frame_array, height=height, width=width))

        return SizedMedia(self.name, vision, load, self.header.buffered_bytes)


@dataclass(frozen=True, slots=True, eq=False)
class UnsizedFrames:
    """A video given as a list of frames whose headers were read.

    Attributes:
        name: The video in error messages.
        frames: Headers of the sampled frames; an even number of them.
        limits: Limits on the number of pixels.
    """

    name: str
    frames: tuple[ImageHeader, ...]
    limits: Limits

    @property
    def num_pairs(self) -> int:
        """Number of frame pairs."""
        return len(self.frames) // FRAME_FACTOR

    def resolve_size(self, max_tokens: int | None = None) -> SizedMedia:
        """Decide the size of the frames.

        Args:
            max_tokens: Maximum number of tokens, besides the limits; None means the limits alone. Frames have a least
                size (see `video_frame_size`), so there may be more.

        Returns:
            The video at that size.

        Raises:
            MediaError: The frames are too long in relation to their width.
        """
        total_pixels = self.limits.total_pixels
        if max_tokens is not None:
            total_pixels = min(total_pixels, max_tokens * PIXELS_PER_TOKEN)
        # The reference resizes each frame as an image first, then all frames as a video.
        image_height, image_width = frame_list_size(self.frames[0].width, self.frames[0].height)
        height, width = video_frame_size(image_width, image_height, len(self.frames), total_pixels)
        vision = VisionPart(
            (tuple(frame.identity for frame in self.frames), height, width),
            patch_grid(height, width, len(self.frames)),
            pair_timestamps(range(len(self.frames)), FRAME_LIST_FPS),
        )

        def load() -> NDArray[np.uint8]:
            from qwen3vl.processing.pixels import resize_frame_array  # imports torch

            # One frame at a time: the first size may be far larger than the second.
            frames = (frame.load((image_height, image_width)) for frame in self.frames)
            return np.stack([resize_frame_array(frame, height, width) for frame in frames])

        return SizedMedia(self.name, vision, load, sum(frame.buffered_bytes for frame in self.frames))


UnsizedMedia = UnsizedImage | UnsizedVideo | UnsizedFrames
"""An image or video whose header was read."""


def read_headers(
    item: Item, limits: Limits, policy: MediaPolicy, *, exif: bool, before_each: Callable[[], None] = lambda: None
) -> PromptContent[UnsizedMedia]:
    """Read the headers of an item's media, videos first.

    Args:
        item: The item.
        limits: Limits on pixels and frames.
        policy: Limits on files, addresses and sizes.
        exif: Whether images are rotated by their EXIF orientation.
        before_each: Called before each image, video file and frame; what it raises ends the reading.

    Returns:
        The item's content, ready for a prompt template.

    Raises:
        InputError: An image or video cannot be used; the first one that fails is named in `InputError.source`. Or there
            are so many of them that they cannot fit into `limits.max_length` at any size.
    """
    max_frames = item.max_frames or limits.max_frames
    num_pairs = len(item.images) + sum(_min_pairs(video, max_frames) for video in item.videos)
    _check_fit(num_pairs, limits)
    videos: list[UnsizedVideo | UnsizedFrames] = []
    for video in item.videos:
        unsized = _read_video(video, item, limits, policy, exif=exif, before_each=before_each)
        videos.append(unsized)
        num_pairs += unsized.num_pairs - _min_pairs(video, max_frames)
        _check_fit(num_pairs, limits)
    images: list[UnsizedImage] = []
    for image in item.images:
        before_each()
        images.append(_read_image(image, limits, policy, exif=exif))
    return PromptContent(tuple(videos), tuple(images), item.texts)


def _min_pairs(video: VideoReference, max_frames: int) -> int:
    """Return how many frame pairs a video has at least, before its header is read."""
    return math.ceil(min(len(video.frames), max_frames) / FRAME_FACTOR) if video.frames else 1


def _check_fit(num_pairs: int, limits: Limits) -> None:
    """Raise `InputError` if images or frame pairs cannot fit even at their least size."""
    if num_pairs * _MIN_TOKENS > limits.max_length:
        raise InputError(
            f"its {num_pairs} images or pairs of frames take at least {num_pairs * _MIN_TOKENS} tokens and max_length "
            f"is {limits.max_length}: send fewer images or frames, or raise max_length"
        )


def _read_image(image: ImageReference, limits: Limits, policy: MediaPolicy, *, exif: bool) -> UnsizedImage:
    with error_source(image.name):
        unsized = UnsizedImage(image.name, read_image_header(image, policy, exif=exif), limits)
        unsized.resolve_size()  # fails here, where the error gets its source, if the model does not take the shape
    return unsized


def _read_video(
    video: VideoReference,
    item: Item,
    limits: Limits,
    policy: MediaPolicy,
    *,
    exif: bool,
    before_each: Callable[[], None],
) -> UnsizedVideo | UnsizedFrames:
    max_frames = item.max_frames or limits.max_frames
    unsized: UnsizedVideo | UnsizedFrames
    with error_source(video.name):
        if video.frames:
            frames = _read_frames(video, max_frames, policy, exif=exif, before_each=before_each)
            unsized = UnsizedFrames(video.name, frames, limits)
        else:
            before_each()
            from qwen3vl.media.videos import read_video_header

            header = read_video_header(video, policy)
            num_frames = header.last_frame - header.first_frame + 1
            frame_rate = header.timeline.frame_rate
            # What the engine is set to is allowed in any case: the policy limits what comes with an input.
            allowed = max(policy.max_frames, limits.max_frames)
            frame_indices = sample_video_frames(
                header.first_frame,
                num_frames,
                frame_rate,
                item.fps or limits.fps,
                min(max_frames, allowed + FRAME_FACTOR),
            )
            if len(frame_indices) > allowed:
                raise PolicyError(
                    f"more than the {allowed} frames that the media policy allows (MediaPolicy.max_frames) would be "
                    f"sampled; pass max_frames={allowed}, a lower fps, or a part of the video"
                )
            unsized = UnsizedVideo(video.name, header, tuple(frame_indices), limits)
        unsized.resolve_size()  # fails here, where the error gets its source, if the model does not take the shape
    return unsized


def _read_frames(
    video: VideoReference, max_frames: int, policy: MediaPolicy, *, exif: bool, before_each: Callable[[], None]
) -> tuple[ImageHeader, ...]:
    """Read the headers of the sampled frames of a list; each file is read once, even if a frame is repeated."""
    check_frame_list(len(video.frames), policy)
    frame_indices = sample_frame_list(len(video.frames), max_frames)
    headers: dict[int, ImageHeader] = {}
    for index in dict.fromkeys(frame_indices):
        before_each()
        headers[index] = read_image_header(video.frames[index], policy, exif=exif)
    if len({frame_list_size(header.width, header.height) for header in headers.values()}) > 1:
        raise MediaError("its frames are of different sizes; make them one size")
    return tuple(headers[index] for index in frame_indices)

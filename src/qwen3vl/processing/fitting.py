"""From items to prompts that fit: sizes are settled from headers, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from qwen3vl.errors import InputError, MediaError, PolicyError
from qwen3vl.inputs import ImageReference, Item, VideoReference
from qwen3vl.media.images import Header, read_image_header
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.geometry import (
    FRAME_LIST_FPS,
    TOKEN_PIXELS,
    Limits,
    num_tokens,
    patch_grid,
    sample_frame_list,
    sample_video_frames,
    seconds,
    smart_resize,
    video_frame_size,
)
from qwen3vl.processing.pixels import frame_list_size, resize_frames, resize_image
from qwen3vl.processing.templates import ControlToken, PromptContent, TextPart, VisionPart
from qwen3vl.processing.tokenizer import Tokenizer

if TYPE_CHECKING:  # imports PyAV, which would delay the start of every process
    from qwen3vl.media.videos import VideoHeader

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class SizedMedia:
    """A picture or clip at its settled size: how the prompt shows it, and how its pixels are made.

    `load` returns uint8 (frames, height, width, 3); it may be called on any thread.
    """

    name: str
    vision: VisionPart
    load: Callable[[], Tensor]
    held: int
    """Bytes of encoded files that are kept in memory until then."""


@dataclass(frozen=True, slots=True, eq=False)
class UnsizedImage:
    """A picture whose header is read."""

    name: str
    header: Header
    limits: Limits

    def resolve_size(self, most: int | None = None) -> SizedMedia:
        """The picture at its natural size, or at most `most` tokens."""
        pixels = self.limits.max_pixels if most is None else min(self.limits.max_pixels, most * TOKEN_PIXELS)
        least = min(self.limits.min_pixels, pixels)
        height, width = smart_resize(self.header.width, self.header.height, least, pixels)
        vision = VisionPart((self.header.identity, height, width), patch_grid(height, width))
        return SizedMedia(self.name, vision, lambda: resize_image(self.header.load(), height, width), self.header.held)


@dataclass(frozen=True, slots=True, eq=False)
class UnsizedVideo:
    """A clip file whose container is read, and the places of the frames that will be looked at."""

    name: str
    header: VideoHeader
    places: tuple[int, ...]
    limits: Limits

    def resolve_size(self, most: int | None = None) -> SizedMedia:
        """The clip as the reference sizes it, or with the frames' total pixels limited to fit `most` tokens."""
        total = None if most is None else min(self.limits.total_pixels, most * TOKEN_PIXELS)
        timeline = self.header.timeline
        height, width = video_frame_size(timeline.width, timeline.height, len(self.places), total)
        vision = VisionPart(
            (self.header.identity, self.places, height, width),
            patch_grid(height, width, len(self.places)),
            seconds(self.places, timeline.rate),
        )

        def load() -> Tensor:
            return self.header.load(self.places, lambda frame: resize_frames(frame, height, width))

        return SizedMedia(self.name, vision, load, self.header.held)


@dataclass(frozen=True, slots=True, eq=False)
class UnsizedFrames:
    """A clip given as a list of frames, all of one size, whose headers are read."""

    name: str
    frames: tuple[Header, ...]
    limits: Limits

    def resolve_size(self, most: int | None = None) -> SizedMedia:
        total = self.limits.total_pixels if most is None else min(self.limits.total_pixels, most * TOKEN_PIXELS)
        first = frame_list_size(self.frames[0].width, self.frames[0].height)
        height, width = video_frame_size(first[1], first[0], len(self.frames), total)
        vision = VisionPart(
            (tuple(frame.identity for frame in self.frames), height, width),
            patch_grid(height, width, len(self.frames)),
            seconds(range(len(self.frames)), FRAME_LIST_FPS),
        )

        def load() -> Tensor:
            frames = [resize_image(frame.load(), *first) for frame in self.frames]
            return resize_frames(torch.cat(frames), height, width)

        return SizedMedia(self.name, vision, load, sum(frame.held for frame in self.frames))


UnsizedMedia = UnsizedImage | UnsizedVideo | UnsizedFrames


def read_headers(item: Item, limits: Limits, policy: MediaPolicy, *, exif: bool) -> PromptContent[UnsizedMedia]:
    """Reads the headers of an item's media, clips first; the first one that fails is the item's error."""
    return PromptContent(
        videos=tuple(
            _named(clip.name, partial(_video_headers, clip, item, limits, policy, exif)) for clip in item.videos
        ),
        images=tuple(_named(each.name, partial(_image_header, each, limits, policy, exif)) for each in item.images),
        texts=item.texts,
    )


def _named(name: str, make: Callable[[], Result]) -> Result:
    """Lets an error know which of an item's media it is about."""
    try:
        return make()
    except InputError as error:
        error.source = name
        raise


def _image_header(picture: ImageReference, limits: Limits, policy: MediaPolicy, exif: bool) -> UnsizedImage:
    made = UnsizedImage(picture.name, read_image_header(picture, policy, exif=exif), limits)
    made.resolve_size()  # a shape that the model does not take fails here
    return made


def _video_headers(
    clip: VideoReference, item: Item, limits: Limits, policy: MediaPolicy, exif: bool
) -> UnsizedVideo | UnsizedFrames:
    most = item.max_frames or limits.max_frames
    if clip.frames:
        if len(clip.frames) > policy.max_frames:
            raise PolicyError(f"it has {len(clip.frames)} frames and the media policy allows {policy.max_frames}")
        places = sample_frame_list(len(clip.frames), most)
        headers = {place: read_image_header(clip.frames[place], policy, exif=exif) for place in places}
        frames = tuple(headers[place] for place in places)
        sizes = {frame_list_size(frame.width, frame.height) for frame in frames}
        if len(sizes) > 1:
            raise MediaError("its frames are of different sizes; make them one size")
        made: UnsizedVideo | UnsizedFrames = UnsizedFrames(clip.name, frames, limits)
    else:
        from qwen3vl.media.videos import read_video_header

        header = read_video_header(clip, policy)
        count = header.last - header.first + 1
        sampled = sample_video_frames(header.first, count, header.timeline.rate, item.fps or limits.fps, most)
        made = UnsizedVideo(clip.name, header, tuple(sampled), limits)
    made.resolve_size()
    return made


@dataclass(frozen=True, slots=True, eq=False)
class FittedPrompt:
    """A prompt that fits, the media it shows, and what had to give way for that (empty if nothing)."""

    prompt: EncodedPrompt
    media: tuple[SizedMedia, ...]
    notice: str = ""


def fit(parts: Sequence[ControlToken | TextPart | UnsizedMedia], tokenizer: Tokenizer, max_length: int) -> FittedPrompt:
    """Settles all sizes and tokenises.

    Where the prompt is longer than `max_length`, the media shrink first, each by the same share, down to
    what the text leaves them or to half of the room; then the caller's text is cut at its end.
    """
    settled = _settle(parts, None)
    natural = tokenizer.write(_shown(settled), 1 << 60)
    notices = []
    seen = sum(_tokens(part) for part in settled)
    if len(natural.prompt) > max_length and seen:
        fixed = len(natural.prompt) - seen - natural.text
        room = max(max_length - fixed - natural.text, (max_length - fixed) // 2)
        if seen > room > 0:
            settled = _settle(parts, room / seen)
            now = sum(_tokens(part) for part in settled)
            notices.append(f"its media were shrunk from {seen} to {now} tokens")
    written = natural if len(natural.prompt) <= max_length else tokenizer.write(_shown(settled), max_length)
    if written.cut:
        notices.append(f"its text was cut from {written.text + written.cut} to {written.text} tokens")
    media = tuple(part for part in settled if isinstance(part, SizedMedia))
    notice = f"{' and '.join(notices)} to fit max_length {max_length}" if notices else ""
    return FittedPrompt(written.prompt, media, notice)


def _settle(
    parts: Sequence[ControlToken | TextPart | UnsizedMedia], share: float | None
) -> list[ControlToken | TextPart | SizedMedia]:
    """Every draft at its natural size, or at `share` of its natural tokens."""
    settled: list[ControlToken | TextPart | SizedMedia] = []
    for part in parts:
        if isinstance(part, (ControlToken, TextPart)):
            settled.append(part)
            continue
        planned = part.resolve_size()
        if share is not None:
            planned = part.resolve_size(max(int(_tokens(planned) * share), 1))
        settled.append(planned)
    return settled


def _shown(parts: Sequence[ControlToken | TextPart | SizedMedia]) -> list[ControlToken | TextPart | VisionPart]:
    return [part.vision if isinstance(part, SizedMedia) else part for part in parts]


def _tokens(part: ControlToken | TextPart | SizedMedia) -> int:
    return num_tokens(part.vision.grid) if isinstance(part, SizedMedia) else 0

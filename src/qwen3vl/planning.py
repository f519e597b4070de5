"""From items to prompts that fit: sizes are settled from headers, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from qwen3vl.errors import InputError, MediaError, PolicyError
from qwen3vl.geometry import (
    FRAME_LIST_FPS,
    TOKEN_PIXELS,
    Limits,
    frame_size,
    grid_of,
    picture_size,
    sample_clip,
    sample_list,
    seconds,
    tokens_of,
)
from qwen3vl.inputs import Clip, Item, Picture
from qwen3vl.media.clips import ClipHeader, read_clip_header
from qwen3vl.media.pictures import Header, read_header
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.packing import Prompted
from qwen3vl.pixels import frame_of_list_size, resize_frames, resize_picture
from qwen3vl.prompt import Content, Control, Text, Tokenizer, Vision

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A picture or clip at its settled size: how the prompt shows it, and how its pixels are made.

    `load` returns uint8 (frames, height, width, 3); it may be called on any thread.
    """

    name: str
    vision: Vision
    load: Callable[[], Tensor]
    held: int
    """Bytes of encoded files that are kept in memory until then."""


@dataclass(frozen=True, slots=True, eq=False)
class PictureDraft:
    """A picture whose header is read."""

    name: str
    header: Header
    limits: Limits

    def settle(self, most: int | None = None) -> Planned:
        """The picture at its natural size, or at most `most` tokens."""
        pixels = self.limits.max_pixels if most is None else min(self.limits.max_pixels, most * TOKEN_PIXELS)
        least = min(self.limits.min_pixels, pixels)
        height, width = picture_size(self.header.width, self.header.height, least, pixels)
        vision = Vision((self.header.identity, height, width), grid_of(height, width))
        return Planned(self.name, vision, lambda: resize_picture(self.header.load(), height, width), self.header.held)


@dataclass(frozen=True, slots=True, eq=False)
class ClipDraft:
    """A clip file whose container is read, and the places of the frames that will be looked at."""

    name: str
    header: ClipHeader
    places: tuple[int, ...]
    limits: Limits

    def settle(self, most: int | None = None) -> Planned:
        """The clip as the reference sizes it, or with the frames' total pixels limited to fit `most` tokens."""
        total = None if most is None else min(self.limits.total_pixels, most * TOKEN_PIXELS)
        timeline = self.header.timeline
        height, width = frame_size(timeline.width, timeline.height, len(self.places), total)
        vision = Vision(
            (self.header.identity, self.places, height, width),
            grid_of(height, width, len(self.places)),
            seconds(self.places, timeline.rate),
        )

        def load() -> Tensor:
            return self.header.load(self.places, lambda frame: resize_frames(frame, height, width))

        return Planned(self.name, vision, load, self.header.held)


@dataclass(frozen=True, slots=True, eq=False)
class FramesDraft:
    """A clip given as a list of frames, all of one size, whose headers are read."""

    name: str
    frames: tuple[Header, ...]
    limits: Limits

    def settle(self, most: int | None = None) -> Planned:
        total = self.limits.total_pixels if most is None else min(self.limits.total_pixels, most * TOKEN_PIXELS)
        first = frame_of_list_size(self.frames[0].width, self.frames[0].height)
        height, width = frame_size(first[1], first[0], len(self.frames), total)
        vision = Vision(
            (tuple(frame.identity for frame in self.frames), height, width),
            grid_of(height, width, len(self.frames)),
            seconds(range(len(self.frames)), FRAME_LIST_FPS),
        )

        def load() -> Tensor:
            frames = [resize_picture(frame.load(), *first) for frame in self.frames]
            return resize_frames(torch.cat(frames), height, width)

        return Planned(self.name, vision, load, sum(frame.held for frame in self.frames))


Draft = PictureDraft | ClipDraft | FramesDraft


def draft(item: Item, limits: Limits, policy: MediaPolicy, *, exif: bool) -> Content[Draft]:
    """Reads the headers of an item's media, clips first; the first one that fails is the item's error."""
    return Content(
        videos=tuple(_named(clip.name, partial(_clip, clip, item, limits, policy, exif)) for clip in item.videos),
        images=tuple(_named(each.name, partial(_picture, each, limits, policy, exif)) for each in item.images),
        texts=item.texts,
    )


def _named(name: str, make: Callable[[], Result]) -> Result:
    """Lets an error know which of an item's media it is about."""
    try:
        return make()
    except InputError as error:
        error.source = name
        raise


def _picture(picture: Picture, limits: Limits, policy: MediaPolicy, exif: bool) -> PictureDraft:
    made = PictureDraft(picture.name, read_header(picture, policy, exif=exif), limits)
    made.settle()  # a shape that the model does not take fails here
    return made


def _clip(clip: Clip, item: Item, limits: Limits, policy: MediaPolicy, exif: bool) -> ClipDraft | FramesDraft:
    most = item.max_frames or limits.max_frames
    if clip.frames:
        if len(clip.frames) > policy.max_frames:
            raise PolicyError(f"it has {len(clip.frames)} frames and the media policy allows {policy.max_frames}")
        places = sample_list(len(clip.frames), most)
        headers = {place: read_header(clip.frames[place], policy, exif=exif) for place in places}
        frames = tuple(headers[place] for place in places)
        sizes = {frame_of_list_size(frame.width, frame.height) for frame in frames}
        if len(sizes) > 1:
            raise MediaError("its frames are of different sizes; make them one size")
        made: ClipDraft | FramesDraft = FramesDraft(clip.name, frames, limits)
    else:
        header = read_clip_header(clip, policy)
        count = header.last - header.first + 1
        sampled = sample_clip(header.first, count, header.timeline.rate, item.fps or limits.fps, most)
        made = ClipDraft(clip.name, header, tuple(sampled), limits)
    made.settle()
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Planning:
    """A prompt that fits, the media it shows, and what had to give way for that (empty if nothing)."""

    prompt: Prompted
    media: tuple[Planned, ...]
    notice: str = ""


def fit(parts: Sequence[Control | Text | Draft], tokenizer: Tokenizer, max_length: int) -> Planning:
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
    media = tuple(part for part in settled if isinstance(part, Planned))
    notice = f"{' and '.join(notices)} to fit max_length {max_length}" if notices else ""
    return Planning(written.prompt, media, notice)


def _settle(parts: Sequence[Control | Text | Draft], share: float | None) -> list[Control | Text | Planned]:
    """Every draft at its natural size, or at `share` of its natural tokens."""
    settled: list[Control | Text | Planned] = []
    for part in parts:
        if isinstance(part, (Control, Text)):
            settled.append(part)
            continue
        planned = part.settle()
        if share is not None:
            planned = part.settle(max(int(_tokens(planned) * share), 1))
        settled.append(planned)
    return settled


def _shown(parts: Sequence[Control | Text | Planned]) -> list[Control | Text | Vision]:
    return [part.vision if isinstance(part, Planned) else part for part in parts]


def _tokens(part: Control | Text | Planned) -> int:
    return tokens_of(part.vision.grid) if isinstance(part, Planned) else 0

"""Clips: frames counted and timed by the container first, then only the wanted ones decoded."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from torch import Tensor

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.hashing import bytes_digest
from qwen3vl.inputs import VideoReference
from qwen3vl.media.images import check_bytes, check_file, check_pixels
from qwen3vl.media.policy import MediaPolicy

logging.getLogger("libav").setLevel(logging.ERROR)  # broken files are our errors, not FFmpeg's log lines


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """A clip's frames in the order of showing: `times` in units of the stream, and which are key frames."""

    width: int
    height: int
    rate: float
    times: np.ndarray[Any, np.dtype[np.int64]]
    keys: np.ndarray[Any, np.dtype[np.int64]]

    @property
    def seconds(self) -> float:
        return len(self.times) / self.rate


@dataclass(frozen=True, slots=True, eq=False)
class VideoHeader:
    """A clip's source and timeline, what identifies its content, and the frames asked for (first, last)."""

    source: Path | bytes
    timeline: Timeline
    identity: Hashable
    first: int
    last: int

    def load(self, places: Sequence[int], shrink: Callable[[Tensor], Tensor] = lambda frame: frame) -> Tensor:
        """The frames at `places`, each through `shrink` as it is decoded: uint8 (places, height, width, 3).

        `shrink` takes and returns (1, height, width, 3): no more than one frame is held at its full size.
        """
        return _decode(self.source, self.timeline, places, shrink)

    @property
    def held(self) -> int:
        """Bytes of the encoded file that are kept in memory."""
        return len(self.source) if isinstance(self.source, bytes) else 0


def read_video_header(clip: VideoReference, policy: MediaPolicy) -> VideoHeader:
    """Reads the container of a clip file.

    Raises `MediaError` where it is missing or broken, `PolicyError` where the policy forbids it.
    """
    if clip.where == "path":
        path = policy.check_path(clip.data)
        known = check_file(path, policy)
        identity: Hashable = known
        source: Path | bytes = path
        timeline = _timeline_of_file(known)
    else:
        if clip.where == "url":
            from qwen3vl.media.fetch import fetch  # imported late: httpx would delay the start of every process

            data = fetch(clip.data, policy)
        else:
            data = check_bytes(clip.data, policy)
        source = data
        identity = bytes_digest(data)
        timeline = _timeline(data)
    check_pixels(timeline.width, timeline.height, policy)
    first, last = _part(clip, timeline)
    asked = (last - first) / timeline.rate
    if asked > policy.max_seconds:
        raise PolicyError(
            f"it lasts {asked:.0f} seconds and the media policy allows {policy.max_seconds:g} "
            "(MediaPolicy.max_seconds); a part is named by #t=start,end"
        )
    return VideoHeader(source, timeline, identity, first, last)


def _part(clip: VideoReference, timeline: Timeline) -> tuple[int, int]:
    """First and last frame between `start` and `end` seconds, as qwen-vl-utils counts them."""
    total = len(timeline.times)
    first, last = 0, total - 1
    if clip.start is not None:
        first = math.ceil(min(clip.start, timeline.seconds) * timeline.rate)
    if clip.end is not None:
        last = min(math.floor(min(clip.end, timeline.seconds) * timeline.rate), total - 1)
    if first >= last:
        raise MediaError(
            f"there is nothing between {clip.start or 0:g} and {clip.end or timeline.seconds:g} seconds: "
            f"the clip lasts {timeline.seconds:.1f} seconds ({total} frames)"
        )
    return first, last


@lru_cache(maxsize=8)
def _timeline_of_file(identity: tuple[str, int, int]) -> Timeline:
    """Cached while the file stays as it is: the parts of a long clip share one reading."""
    return _timeline(Path(identity[0]))


def _timeline(source: Path | bytes) -> Timeline:
    with _open(source) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate
        times, keys = [], []
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size:
                times.append(packet.pts)
                if packet.is_keyframe:
                    keys.append(packet.pts)
        width, height = stream.codec_context.width, stream.codec_context.height
    if not times or not rate:
        raise MediaError("the clip has no frames")
    return Timeline(width, height, float(Fraction(rate)), np.unique(times), np.unique(keys))


def _decode(
    source: Path | bytes, timeline: Timeline, places: Sequence[int], shrink: Callable[[Tensor], Tensor]
) -> Tensor:
    """Seeks to the key frame before each wanted frame, unless decoding on is nearer."""
    wanted = {int(timeline.times[place]): place for place in places}
    frames: dict[int, Tensor] = {}
    with _open(source) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        pending = sorted(wanted)
        position: int | None = None
        while pending:
            target = pending[0]
            key = _key_before(timeline, target)
            if position is None or key > position:
                container.seek(key, stream=stream, backward=True)
            before = len(pending)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                position = frame.pts
                if (frame.width, frame.height) != (timeline.width, timeline.height):
                    raise MediaError("the clip changes its size half way; cut it there")
                while pending and frame.pts >= pending[0]:
                    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                    frames[wanted[pending.pop(0)]] = shrink(pixels[None])
                if not pending or _key_before(timeline, pending[0]) > position:
                    break
            if len(pending) == before:
                raise MediaError(f"the clip is broken: its frame {wanted[target]} cannot be decoded")
    return torch.cat([frames[place] for place in places])


def _key_before(timeline: Timeline, time: int) -> int:
    """The last key frame at or before `time`."""
    place = int(np.searchsorted(timeline.keys, time, side="right")) - 1
    return int(timeline.keys[place]) if place >= 0 else int(timeline.times[0])


@contextmanager
def _open(source: Path | bytes) -> Iterator[Any]:
    """Opens a container by a demuxer chosen from its first bytes.

    Playlists and other formats that refer to further files or addresses are never chosen.
    """
    demuxer = _demuxer(source[:16] if isinstance(source, bytes) else _head(source))
    with BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        try:
            container = av.open(file, format=demuxer, mode="r", metadata_errors="ignore")
        except (av.FFmpegError, ValueError, OSError) as error:
            raise MediaError(f"the clip cannot be opened: {error}") from error
        try:
            if not container.streams.video:
                raise MediaError("the file has no video in it")
            yield container
        except av.FFmpegError as error:
            raise MediaError(f"the clip is broken: {error}") from error
        finally:
            container.close()


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror or error}") from error


def _demuxer(head: bytes) -> str:
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    for magic, name in (
        (b"\x1a\x45\xdf\xa3", "matroska"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpegvideo"),
        (b"FLV", "flv"),
        (b"OggS", "ogg"),
        (b"GIF8", "gif"),
        (b"\x47", "mpegts"),
    ):
        if head.startswith(magic):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    raise MediaError("this is not a clip that can be read (MP4, MOV, MKV, WebM, AVI, MPEG, FLV, OGG, GIF)")

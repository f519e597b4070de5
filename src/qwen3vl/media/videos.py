"""Videos: the container is read first, for the times of its frames; then only the sampled frames are decoded."""

from __future__ import annotations

import logging
import math
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.inputs import VideoReference
from qwen3vl.media.isolation import decode, decode_stream
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.source import FileVersion, MediaSource, check_pixels, open_source
from qwen3vl.types import Pixels, Size

logging.getLogger("libav").setLevel(logging.ERROR)  # broken files become our errors, not FFmpeg's log lines

MAX_FRAMES = 5_000_000
"""Frames of a whole video: 23 hours at 60 frames per second. A file of a few kilobytes can claim any number."""
MAX_FRAME_PIXELS = 8192 * 4352
"""Pixels of a frame, 8K: the largest picture of H.264 and H.265 at level 6.2 (ITU-T H.264, table A-1; H.265, table
A.8). Each frame is resized in this process, however it is decoded."""
_CHUNK_BYTES = 8 * 2**20
"""Pixels that are handed over at once: handing over each small frame alone would take longer than copying it."""


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The frames of a video in presentation order.

    Attributes:
        width: Pixels per row of a frame.
        height: Number of rows of a frame.
        frame_rate: Average number of frames per second.
        frame_pts: Presentation timestamps of the frames in the stream's time base, sorted, (num_frames,) int64.
        keyframe_pts: Those of the key frames, sorted, int64.
    """

    width: int
    height: int
    frame_rate: float
    frame_pts: NDArray[np.int64]
    keyframe_pts: NDArray[np.int64]

    @property
    def duration(self) -> float:
        """Duration in seconds, by the number of frames and the frame rate."""
        return len(self.frame_pts) / self.frame_rate


@dataclass(frozen=True, slots=True, eq=False)
class VideoHeader:
    """What is known of a video before it is decoded.

    Attributes:
        source: The encoded file.
        policy: Where and with which limits it is decoded.
        timeline: The frames of the whole video.
        identity: Equal only for the same content: the digest of bytes; for a file on disk its path, size and time of
            the last change, so that copies of a file differ.
        first_frame: Index of the first frame of the part that was asked for.
        last_frame: Index of the last frame of that part, inclusive.
    """

    source: MediaSource
    policy: MediaPolicy
    timeline: Timeline
    identity: Hashable
    first_frame: int
    last_frame: int

    def load(self, frame_indices: Sequence[int], resize: Callable[[Pixels], Pixels] = lambda frame: frame) -> Pixels:
        """Decode frames.

        Args:
            frame_indices: Indices of the frames in the whole video, in any order.
            resize: Applied to each frame, (height, width, 3) uint8, as soon as it is decoded, so that few frames at a
                time are in memory at their full size. Its results must have equal shapes.

        Returns:
            The resized frames, (num_frames, height, width, 3) uint8.

        Raises:
            MediaError: The video is broken, or was changed since its header was read.
        """
        frames: dict[int, Pixels] = {}
        size = (self.timeline.height, self.timeline.width)
        with closing(
            decode_stream(self.policy, decode_frames, self.source.data, size, self._targets(frame_indices))
        ) as stream:
            for chunk in stream:
                frames |= {index: resize(frame) for index, frame in chunk}
                chunk.clear()  # while the next one arrives: large frames have hundreds of megabytes
        self.source.require_unchanged()
        return np.stack([frames[index] for index in frame_indices])

    def _targets(self, frame_indices: Sequence[int]) -> list[tuple[int, int, int]]:
        """Return for each frame its index, its timestamp and that of the key frame before it, sorted."""
        frame_pts = self.timeline.frame_pts
        return [
            (index, int(frame_pts[index]), _keyframe_before(self.timeline, int(frame_pts[index])))
            for index in sorted(set(frame_indices))
        ]

    @property
    def buffered_bytes(self) -> int:
        """Size of the encoded file that is kept in memory for `load`, in bytes; 0 for a file on disk."""
        return self.source.buffered_bytes


def read_video_header(reference: VideoReference, policy: MediaPolicy) -> VideoHeader:
    """Read the container of a video file.

    Args:
        reference: A video file, or a part of one. A list of frames has no container.
        policy: Limits on files, addresses and sizes.

    Returns:
        The header; no frame is decoded yet.

    Raises:
        MediaError: The video is missing or broken, or the part that is asked for has fewer than two frames.
        PolicyError: The policy does not allow it.
    """
    source = open_source(reference, policy)
    if isinstance(source.encoded, bytes):
        identity: Hashable = source.content_digest()
        timeline = _decode_timeline(source.encoded, policy)
    else:
        identity = source.encoded  # not hashed: hashing a long video would take as long as reading it
        timeline = _decode_file_timeline(source.encoded, policy)
    check_pixels(timeline.width, timeline.height, policy)
    if timeline.width * timeline.height > MAX_FRAME_PIXELS:
        raise PolicyError(f"its frames have {timeline.width} x {timeline.height} pixels, more than 8K; scale it down")
    first_frame, last_frame = _frame_range(reference, timeline)
    duration = (last_frame - first_frame) / timeline.frame_rate
    if duration > policy.max_seconds:
        raise PolicyError(
            f"it lasts {duration:.0f} seconds and the media policy allows {policy.max_seconds:g} "
            "(MediaPolicy.max_seconds); pass a part of it, as video.mp4#t=start,end"
        )
    return VideoHeader(source, policy, timeline, identity, first_frame, last_frame)


def _frame_range(reference: VideoReference, timeline: Timeline) -> tuple[int, int]:
    """Return the indices of the first and the last frame between `start` and `end` seconds.

    This is `calculate_video_frame_range` of qwen-vl-utils 0.0.14, `vision_process.py`.
    """
    num_frames = len(timeline.frame_pts)
    first_frame, last_frame = 0, num_frames - 1
    if reference.start is not None:
        first_frame = math.ceil(min(reference.start, timeline.duration) * timeline.frame_rate)
    if reference.end is not None:
        end_frame = math.floor(min(reference.end, timeline.duration) * timeline.frame_rate)
        last_frame = min(end_frame, num_frames - 1)
    if first_frame >= last_frame:
        end = timeline.duration if reference.end is None else reference.end
        raise MediaError(
            f"there are fewer than two frames between {reference.start or 0:g} and {end:g} seconds: the video lasts "
            f"{timeline.duration:.1f} seconds ({num_frames} frames); choose a longer part, or pass a frame as an image"
        )
    return first_frame, last_frame


@lru_cache(maxsize=8)
def _decode_file_timeline(version: FileVersion, policy: MediaPolicy) -> Timeline:
    """Read a file's timeline; cached by the file's version, so that the parts of a long video share one reading."""
    return _decode_timeline(Path(version.path), policy)


def _decode_timeline(data: Path | bytes, policy: MediaPolicy) -> Timeline:
    width, height, frame_rate, frame_pts, keyframe_pts = decode(policy, read_timeline, data)
    return Timeline(width, height, frame_rate, frame_pts, keyframe_pts)


def read_timeline(data: Path | bytes) -> tuple[int, int, float, NDArray[np.int64], NDArray[np.int64]]:
    """Read the container of a video.

    Args:
        data: A video file, or its bytes.

    Returns:
        The fields of a `Timeline`, in their order.

    Raises:
        MediaError: The video is broken, or has no frames.
        PolicyError: It claims more than `MAX_FRAMES`.
    """
    with _open(data) as container:
        stream = container.streams.video[0]
        if stream.frames > MAX_FRAMES:
            raise PolicyError(_too_many_frames())
        frame_rate = stream.average_rate or stream.guessed_rate
        frame_pts, keyframe_pts = array("q"), array("q")
        for packet in container.demux(stream):
            if packet.pts is not None and packet.size:
                frame_pts.append(packet.pts)
                if packet.is_keyframe:
                    keyframe_pts.append(packet.pts)
                if len(frame_pts) > MAX_FRAMES:
                    raise PolicyError(_too_many_frames())
        width, height = stream.codec_context.width, stream.codec_context.height
    if not frame_pts or not frame_rate:
        raise MediaError("the video has no frames; export it again")
    rate = float(Fraction(frame_rate))
    return width, height, rate, np.unique(np.array(frame_pts)), np.unique(np.array(keyframe_pts, dtype=np.int64))


def _too_many_frames() -> str:
    return f"it has more than {MAX_FRAMES} frames; cut it into several files"


def decode_frames(
    data: Path | bytes, size: Size, targets: Sequence[Sequence[int]]
) -> Iterator[list[tuple[int, Pixels]]]:
    """Decode frames, seeking to the key frame before each unless the decoder is already past it.

    Args:
        data: A video file, or its bytes.
        size: Height and width that all frames must have.
        targets: Index, timestamp and timestamp of the key frame before it, for each frame, sorted by timestamp.

    Yields:
        Index and pixels of frames, (height, width, 3) uint8, as many as fit into `_CHUNK_BYTES`, at least one.

    Raises:
        MediaError: The video is broken.
    """
    chunk = []
    chunk_length = max(1, _CHUNK_BYTES // (3 * size[0] * size[1]))
    for frame in _decode_targets(data, size, targets):
        chunk.append(frame)
        if len(chunk) == chunk_length:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _decode_targets(data: Path | bytes, size: Size, targets: Sequence[Sequence[int]]) -> Iterator[tuple[int, Pixels]]:
    with _open(data) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        pending = deque(targets)
        decoded_pts: int | None = None
        while pending:
            target_index, _, keyframe_pts = pending[0]
            if decoded_pts is None or keyframe_pts > decoded_pts:
                container.seek(keyframe_pts, stream=stream, backward=True)
            num_pending = len(pending)
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                decoded_pts = frame.pts
                if (frame.height, frame.width) != tuple(size):
                    raise MediaError("the video changes its frame size half way; cut it there")
                while pending and frame.pts >= pending[0][1]:
                    yield pending.popleft()[0], frame.to_ndarray(format="rgb24")
                if not pending or pending[0][2] > decoded_pts:
                    break
            if len(pending) == num_pending:
                raise MediaError(f"the video is broken: its frame {target_index} cannot be decoded; export it again")


def _keyframe_before(timeline: Timeline, pts: int) -> int:
    """Return the timestamp of the last key frame at or before `pts`; if there is none, that of the first frame."""
    index = int(np.searchsorted(timeline.keyframe_pts, pts, side="right")) - 1
    return int(timeline.keyframe_pts[index]) if index >= 0 else int(timeline.frame_pts[0])


@contextmanager
def _open(data: Path | bytes) -> Iterator[Any]:
    """Open a container with the demuxer that its first bytes call for.

    FFmpeg's own choice would include playlists and other formats that refer to further files or addresses.
    """
    demuxer = _choose_demuxer(data[:16] if isinstance(data, bytes) else _read_head(data))
    with BytesIO(data) if isinstance(data, bytes) else data.open("rb") as file:
        try:
            container = av.open(file, format=demuxer, mode="r", metadata_errors="ignore")
        except (av.FFmpegError, ValueError, OSError) as error:
            raise MediaError(f"the video cannot be opened: {error}; export it again") from error
        try:
            if not container.streams.video:
                raise MediaError("the file has no video in it; pass a file with a video stream")
            yield container
        except av.FFmpegError as error:
            raise MediaError(f"the video is broken: {error}; export it again") from error
        finally:
            container.close()


def _read_head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror or error}; check its permissions") from error


def _choose_demuxer(head: bytes) -> str:
    """Return the name of FFmpeg's demuxer for a file that begins with these bytes."""
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
    raise MediaError(
        "this is not a video that can be read; convert it to one of MP4, MOV, MKV, WebM, AVI, MPEG, FLV, OGG, GIF"
    )

"""Videos: the container is read first, for the times of its frames; then only the sampled frames are decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.inputs import VideoReference
from qwen3vl.media.isolation import decode, decode_stream
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.source import FileVersion, MediaSource, check_pixels, open_source
from qwen3vl.media.video_container import decode_frames, read_timeline
from qwen3vl.types import Pixels

MAX_FRAME_PIXELS = 8192 * 4352
"""Pixels of a frame, 8K: the largest picture of H.264 and H.265 at level 6.2 (ITU-T H.264, table A-1; H.265, table
A.8). Each frame is resized in this process, however it is decoded."""


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """The frames of a video in presentation order.

    Attributes:
        width: Pixels per row of a frame.
        height: Number of rows of a frame.
        frame_rate: Average number of frames per second.
        frame_pts: Presentation timestamps of the frames in the stream's time base, sorted, (num_frames,) int64.
        keyframe_pts: Those of the key frames behind the first frame of the file, sorted, int64.
        keyframe_seeks: The timestamps to which a demuxer must seek to reach these, in the same order, int64.
    """

    width: int
    height: int
    frame_rate: float
    frame_pts: NDArray[np.int64]
    keyframe_pts: NDArray[np.int64]
    keyframe_seeks: NDArray[np.int64]

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

    def _targets(self, frame_indices: Sequence[int]) -> list[tuple[int, int, int | None, int]]:
        """Return the targets of `decode_frames`."""
        timeline = self.timeline
        targets: list[tuple[int, int, int | None, int]] = []
        for index in sorted(set(frame_indices)):
            pts = int(timeline.frame_pts[index])
            key = int(np.searchsorted(timeline.keyframe_pts, pts, side="right")) - 1
            if key < 0:  # there is nothing to skip
                targets.append((index, pts, None, 0))
            else:
                targets.append((index, pts, int(timeline.keyframe_pts[key]), int(timeline.keyframe_seeks[key])))
        return targets

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
    return Timeline(*decode(policy, read_timeline, data))

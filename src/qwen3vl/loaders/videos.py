"""Loads a video as documents, one for each of its segments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qwen3vl.documents import Document
from qwen3vl.errors import PolicyError
from qwen3vl.inputs import as_video
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.videos import read_video_header


def load_video(path: Path, digest: str, segment_seconds: float, policy: MediaPolicy) -> Iterator[Document]:
    """Load a video in segments of equal duration.

    Args:
        path: The file.
        digest: Digest of its content.
        segment_seconds: The segments are as near to this duration as equal parts can be, in seconds.
        policy: Limits on files and sizes. Its `max_seconds` is not applied to the whole video, only to the segments,
            when they are embedded.

    Yields:
        Documents of kind `"clip"` with `start`, `end` and `seconds` (duration of the whole video) in their metadata.
        The video is the reference `FILE#t=START,END`, or the file if there is only one segment.

    Raises:
        MediaError: The video cannot be opened.
        PolicyError: Its frames are further apart than `policy.max_seconds`.
    """
    header = read_video_header(as_video(path), replace(policy, max_seconds=math.inf))
    duration, num_frames = header.timeline.duration, len(header.timeline.frame_pts)
    # A segment without two frames cannot be embedded. A file of a few kilobytes can claim to last for years.
    num_segments = max(1, min(round(duration / segment_seconds), num_frames // 2))
    if duration / num_segments > max(policy.max_seconds, segment_seconds):
        raise PolicyError(
            f"it lasts {duration:.0f} seconds and has only {num_frames} frames: parts of two frames exceed the "
            f"{policy.max_seconds:g} seconds that the media policy allows (MediaPolicy.max_seconds); export it again"
        )
    for number in range(num_segments):
        start, end = (round(duration * edge / num_segments, 2) for edge in (number, number + 1))
        locator = f"t={start:.12g},{end:.12g}"
        reference = f"{path}#{locator}" if num_segments > 1 else str(path)
        metadata = {"start": start, "end": end, "seconds": round(duration, 2)}
        yield Document(str(path), "clip", digest, locator=locator, video=reference, metadata=metadata)

"""A clip, in parts of equal length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from qwen3vl.documents import Document
from qwen3vl.inputs import as_video
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.videos import read_video_header


def load_video(path: Path, digest: str, segment: float, policy: MediaPolicy) -> Iterator[Document]:
    """Parts with `start` and `end` seconds in their metadata; the video is a reference, `FILE#t=START,END`.

    A clip is cut into as many equal parts as come nearest to `segment` seconds each.
    """
    # How long it may be is judged part by part, when they are embedded.
    length = read_video_header(as_video(path), replace(policy, max_seconds=math.inf)).timeline.seconds
    count = max(1, round(length / segment))
    for number in range(count):
        start, end = (round(length * edge / count, 2) for edge in (number, number + 1))
        locator = f"t={start:g},{end:g}"
        reference = f"{path}#{locator}" if count > 1 else str(path)
        metadata = {"start": start, "end": end, "seconds": round(length, 2)}
        yield Document(str(path), "clip", digest, locator=locator, video=reference, metadata=metadata)

"""Positions of tokens for Qwen3-VL's interleaved multimodal rotary embedding (mRoPE)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwen3vl.processing.encoded_prompt import VisionSpan
from qwen3vl.processing.geometry import MERGE


def mrope_positions(length: int, spans: Sequence[VisionSpan]) -> NDArray[np.int64]:
    """Positions of time, height and width: (3, length).

    Text counts on all three; the tokens of a picture or frame pair stay at one time and count rows and
    columns from there; what follows goes on behind the largest of them (Qwen3-VL's interleaved mRoPE,
    where a clip's times are in its text).
    """
    positions = np.empty((3, length), dtype=np.int64)
    place = following = 0
    for span in spans:
        positions[:, place : span.start] = np.arange(following, following + span.start - place)
        following += span.start - place
        rows, columns = span.grid[1] // MERGE, span.grid[2] // MERGE
        y, x = np.divmod(np.arange(rows * columns), columns)
        positions[0, span.start : span.stop] = following
        positions[1, span.start : span.stop] = following + y
        positions[2, span.start : span.stop] = following + x
        following += max(rows, columns)
        place = span.stop
    positions[:, place:] = np.arange(following, following + length - place)
    return positions

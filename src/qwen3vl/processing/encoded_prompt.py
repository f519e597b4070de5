"""A prompt as token ids and positions, with the spans of its vision tokens."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qwen3vl.types import Grid

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class VisionSpan:
    """Consecutive tokens of a prompt that show an image, or one frame pair of a video.

    Attributes:
        start: Index of the first token.
        stop: Index after the last token.
        key: Identifies the image, or the video and its sampled frames, at its size in pixels. Spans with equal key and
            offset show the same pixels.
        grid: Size of the whole image or video in patches.
        offset: Index of the span's first token among all vision tokens of the image or video.
    """

    start: int
    stop: int
    key: Hashable
    grid: Grid
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """A tokenized prompt.

    Attributes:
        ids: Token ids, (num_tokens,) int64.
        positions: Positions in time, height and width, (3, num_tokens) int64.
        spans: The vision tokens, in order.
    """

    ids: Ints
    positions: Ints
    spans: tuple[VisionSpan, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

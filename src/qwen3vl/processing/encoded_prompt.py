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
    """The tokens `start` to `stop` of a sequence show part of a picture or clip, from its token `offset` on.

    `key` names the media and the size at which they are seen: spans of one key show the same pixels.
    """

    start: int
    stop: int
    key: Hashable
    grid: Grid
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPrompt:
    """One prompt: `ids` (length,), `positions` (3, length) for time, height and width, and its vision spans."""

    ids: Ints
    positions: Ints
    spans: tuple[VisionSpan, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

"""Positions of tokens for multimodal rotary position embedding (M-RoPE).

M-RoPE is described in section 2.1 of the Qwen2-VL paper (arXiv:2409.12191). Qwen3-VL writes the times of a video as
text, so each frame pair has the positions of an image: see `get_rope_index` in transformers, `modeling_qwen3_vl.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qwen3vl.processing.encoded_prompt import VisionSpan
from qwen3vl.processing.geometry import SPATIAL_MERGE_SIZE


def mrope_positions(num_tokens: int, spans: Sequence[VisionSpan]) -> NDArray[np.int64]:
    """Return the positions of a prompt's tokens in time, height and width.

    A text token's three positions are equal and grow by one per token. All tokens of an image or frame pair have the
    same position in time; their positions in height and width start from it and count rows and columns. The next text
    token continues after the largest of them.

    Args:
        num_tokens: Length of the prompt.
        spans: Vision tokens, in order and without overlap.

    Returns:
        Positions, (3, num_tokens) int64.
    """
    positions = np.empty((3, num_tokens), dtype=np.int64)
    index = next_position = 0
    for span in spans:
        num_text_tokens = span.start - index
        positions[:, index : span.start] = np.arange(next_position, next_position + num_text_tokens)
        next_position += num_text_tokens
        rows, columns = span.grid[1] // SPATIAL_MERGE_SIZE, span.grid[2] // SPATIAL_MERGE_SIZE
        row, column = np.divmod(np.arange(rows * columns), columns)
        positions[0, span.start : span.stop] = next_position
        positions[1, span.start : span.stop] = next_position + row
        positions[2, span.start : span.stop] = next_position + column
        next_position += max(rows, columns)
        index = span.stop
    positions[:, index:] = np.arange(next_position, next_position + num_tokens - index)
    return positions

"""Floating point operations of a pack: matrix products and attention, an addition and a multiplication each one."""

from __future__ import annotations

from collections.abc import Iterable

from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.config import ModelConfig
from qwen3vl.types import Grid


def text_flops(config: ModelConfig, layout: AttentionLayout, wanted: int) -> int:
    """Of the language model over a packed row; the last layer goes on with the `wanted` rows behind its attention."""
    text = config.text
    width = text.heads * text.head_dim
    inputs = text.hidden * (width + 2 * text.kv_heads * text.head_dim)
    rest = text.hidden * width + 3 * text.hidden * text.mlp
    rows = layout.tokens * text.layers
    attended = layout.num_attended_pairs(causal=True) * text.layers
    return 2 * (inputs * rows + rest * (rows - layout.tokens + wanted)) + 4 * width * attended


def vision_flops(config: ModelConfig, grids: Iterable[Grid]) -> int:
    """Of the vision tower; a patch attends to all of its frame."""
    vision = config.vision
    merged = vision.hidden * vision.merge**2
    block = 4 * vision.hidden**2 + 2 * vision.hidden * vision.mlp
    merger = (merged**2 + merged * vision.out) * (1 + len(vision.deepstack))
    total = 0
    for frames, height, width in grids:
        patches = height * width
        attention = 4 * vision.hidden * patches**2
        weights = vision.patch_values * vision.hidden + vision.depth * block + merger // vision.merge**2
        total += frames * (2 * weights * patches + vision.depth * attention)
    return total

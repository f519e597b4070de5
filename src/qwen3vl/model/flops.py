"""Floating point operations of a pack: matrix products and attention, an addition and a multiplication each one."""

from __future__ import annotations

from collections.abc import Iterable

from qwen3vl.model.attention import Group
from qwen3vl.model.config import ModelConfig
from qwen3vl.model.vision import Grid


def text_flops(config: ModelConfig, groups: Iterable[Group]) -> int:
    """Of the language model over packed rows; a token attends to its ancestors and to what is in front of it."""
    text = config.text
    width = text.heads * text.head_dim
    weights = text.hidden * (2 * width + 2 * text.kv_heads * text.head_dim) + 3 * text.hidden * text.mlp
    total = 0
    for group in groups:
        behind = sum(length for _, length in group.ancestors)
        seen = group.length * behind + group.length * (group.length + 1) // 2
        total += group.count * (2 * weights * group.length + 4 * width * seen)
    return text.layers * total


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

"""Position tables of the vision tower, computed once for each frame size and device.

The caches outlive the inference that fills them; do not change their tensors in place. They hold ordinary tensors, not
inference tensors, so that training may use them as well.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from qwen3vl.model.transfer import copy_to_device

ROPE_THETA = 10000.0
"""Base of the rotary frequencies; see `Qwen3VLVisionRotaryEmbedding` in transformers."""
MAX_CACHED_SIZES = 64
"""Number of frame sizes whose tables are kept."""


@lru_cache(maxsize=MAX_CACHED_SIZES)
@torch.inference_mode(mode=False)
def rotary_angles(height: int, width: int, head_dim: int, merge_size: int, device: torch.device) -> Tensor:
    """Compute the rotary angles of a frame's patches.

    Half of the frequencies belong to the row of a patch, and half to its column (Qwen2-VL, arXiv 2409.12191).

    Args:
        height: Number of rows of patches.
        width: Number of columns.
        head_dim: Size of an attention head.
        merge_size: Side of the squares of patches that are merged.
        device: The device of the result.

    Returns:
        (height * width, head_dim / 2) float32, in the order of the patches.
    """
    exponents = torch.arange(0, head_dim // 2, 2, dtype=torch.float32) / (head_dim // 2)
    frequencies = 1.0 / ROPE_THETA**exponents
    rows = _to_patch_order(torch.arange(height)[:, None].expand(height, width), merge_size)
    columns = _to_patch_order(torch.arange(width)[None, :].expand(height, width), merge_size)
    angles = torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), dim=-1)
    return copy_to_device(angles, device)


@lru_cache(maxsize=MAX_CACHED_SIZES)
@torch.inference_mode(mode=False)
def bilinear_corners(
    height: int, width: int, table_side: int, merge_size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute how a frame's position embeddings are interpolated from the learned square table.

    As `fast_pos_embed_interpolate` of transformers' `modeling_qwen3_vl.py`.

    Args:
        height: Number of rows of patches.
        width: Number of columns.
        table_side: Number of rows, and of columns, of the table.
        merge_size: Side of the squares of patches that are merged.
        device: The device of the result.

    Returns:
        Indices of the four table entries around each patch, (4, height * width) int64, and their weights, (4, height *
        width) float32, in the order of the patches.
    """
    y, x = torch.linspace(0, table_side - 1, height), torch.linspace(0, table_side - 1, width)
    top, left = y.int(), x.int()
    bottom, right = (top + 1).clip(max=table_side - 1), (left + 1).clip(max=table_side - 1)
    dy, dx = (y - top)[:, None], (x - left)[None, :]
    corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
    corner_weights = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    indices = torch.stack(
        [_to_patch_order(row[:, None] * table_side + column[None, :], merge_size) for row, column in corners]
    )
    weights = torch.stack([_to_patch_order(weight, merge_size) for weight in corner_weights])
    return copy_to_device(indices.long(), device), copy_to_device(weights, device)


def _to_patch_order(plane: Tensor, merge_size: int) -> Tensor:
    """Flatten a (height, width) plane so that the patches of each merged square are consecutive."""
    height, width = plane.shape
    return plane.view(height // merge_size, merge_size, width // merge_size, merge_size).transpose(1, 2).flatten()

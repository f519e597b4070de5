"""Number of floating point operations of a forward pass.

Counted are matrix products and attention, with 2 FLOPs (a multiplication and an addition) for each multiply-accumulate,
as is usual (e.g. Hoffmann et al. 2022, arXiv 2203.15556, appendix F). Norms, activations and rotary embedding are left
out.
"""

from __future__ import annotations

from collections.abc import Iterable

from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.config import ModelConfig
from qwen3vl.types import Grid


def text_flops(config: ModelConfig, layout: AttentionLayout, num_outputs: int) -> int:
    """Return the FLOPs of the language model for a packed row.

    Args:
        config: The model.
        layout: The row's layout.
        num_outputs: Number of tokens whose final hidden state is needed. The last layer computes only these after its
            attention.

    Returns:
        Floating point operations.
    """
    text = config.text
    query_size = text.num_heads * text.head_dim
    kv_size = text.num_kv_heads * text.head_dim
    qkv_weights = text.hidden_size * (query_size + 2 * kv_size)
    output_and_mlp_weights = text.hidden_size * query_size + 3 * text.hidden_size * text.intermediate_size
    num_rows = layout.num_tokens * text.num_layers
    num_output_rows = num_rows - layout.num_tokens + num_outputs
    num_pairs = layout.num_attended_pairs(causal=True) * text.num_layers
    # A pair of query and key takes head_dim multiply-accumulates for the score, and as many for the weighted value.
    return 2 * (qkv_weights * num_rows + output_and_mlp_weights * num_output_rows) + 4 * query_size * num_pairs


def vision_flops(config: ModelConfig, grids: Iterable[Grid]) -> int:
    """Return the FLOPs of the vision tower.

    Args:
        config: The model.
        grids: The grids of the images and videos that are encoded.

    Returns:
        Floating point operations.
    """
    vision = config.vision
    merged_size = vision.hidden_size * vision.spatial_merge_size**2
    block_weights = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    num_mergers = 1 + len(vision.deepstack_visual_indexes)
    merger_weights = (merged_size**2 + merged_size * vision.out_hidden_size) * num_mergers
    weights_per_patch = (
        vision.patch_dim * vision.hidden_size
        + vision.depth * block_weights
        + merger_weights // vision.spatial_merge_size**2
    )
    total = 0
    for frames, height, width in grids:
        num_patches = height * width  # of a frame pair, which attend to one another
        attention = 4 * vision.hidden_size * num_patches**2
        total += frames * (2 * weights_per_patch * num_patches + vision.depth * attention)
    return total

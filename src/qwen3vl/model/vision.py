"""The vision tower: pixels in patches to tokens of the language model, and the DeepStack features beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from qwen3vl.model.attention.base import AttentionFunction
from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.attention.prepare import prepare_attention
from qwen3vl.model.config import VisionConfig
from qwen3vl.model.layers.elementwise import Elementwise, apply_rotary_float32
from qwen3vl.model.layers.initialization import Conv3d, Embedding, LayerNorm
from qwen3vl.model.layers.linear import Linear
from qwen3vl.model.layers.row_chunked import RowChunked
from qwen3vl.model.vision_positions import bilinear_corners, rotary_angles
from qwen3vl.types import Grid

NORM_EPS = 1e-6
"""Epsilon of the tower's layer norms, which is not in config.json; see `Qwen3VLVisionBlock` in transformers."""


class VisionFeatures(NamedTuple):
    """The output of the vision tower.

    Attributes:
        tokens: (num_merged_tokens, hidden_size of the language model).
        deepstack: Features of the same shape for each of the language model's first layers.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...]

    def take(self, indices: Tensor) -> VisionFeatures:
        """Return the features of some tokens, in the order of the indices.

        Args:
            indices: (num_taken,) int64.

        Returns:
            Features of num_taken tokens.
        """
        return VisionFeatures(self.tokens[indices], tuple(features[indices] for features in self.deepstack))


class PatchEmbedding(nn.Module):
    """A linear layer on flattened patches.

    In checkpoints it is a Conv3d whose kernel equals its stride, with a weight of shape (hidden_size, channels, frames,
    height, width); flattened row-major, this is the order of the values in a patch.

    Args:
        config: The vision tower.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = Conv3d(
            config.in_channels,
            config.hidden_size,
            kernel_size=(config.temporal_patch_size, config.patch_size, config.patch_size),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Embed patches.

        Args:
            patches: (num_patches, patch_dim).

        Returns:
            (num_patches, hidden_size).
        """
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class VisionAttention(nn.Module):
    """The projections of attention; attention itself is an `AttentionFunction`.

    Args:
        config: The vision tower.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = Linear(config.hidden_size, config.hidden_size)
        self.apply_rotary = Elementwise(apply_rotary_float32)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Project to queries, keys and values.

        Args:
            hidden: (num_patches, hidden_size), normalized.
            cos: (num_patches, head_dim / 2), float32.
            sin: (num_patches, head_dim / 2), float32.

        Returns:
            Queries, keys and values, each (num_patches, num_heads, head_dim).
        """
        heads = self.qkv(hidden).unflatten(-1, (3 * self.num_heads, -1))
        rotated = self.apply_rotary(heads[:, : 2 * self.num_heads], cos, sin)
        return rotated[:, : self.num_heads], rotated[:, self.num_heads :], heads[:, 2 * self.num_heads :]


class VisionMLP(nn.Module):
    """Feed-forward layer with GELU.

    Args:
        config: The vision tower.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.linear_fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual.

        Args:
            hidden: (num_patches, hidden_size), normalized.
            residual: (num_patches, hidden_size).

        Returns:
            (num_patches, hidden_size).
        """
        return self.linear_fc2.add_residual(self.linear_fc1.gelu(hidden, "tanh"), residual)


class VisionBlock(RowChunked):
    """A transformer block with norms before attention and MLP.

    Args:
        config: The vision tower.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.norm2 = LayerNorm(config.hidden_size, eps=NORM_EPS)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config)

    def forward(self, hidden: Tensor, attention: AttentionFunction, cos: Tensor, sin: Tensor) -> Tensor:
        """Run the block.

        Args:
            hidden: (num_patches, hidden_size).
            attention: Attention within frame pairs.
            cos: (num_patches, head_dim / 2), float32.
            sin: (num_patches, head_dim / 2), float32.

        Returns:
            (num_patches, hidden_size).
        """
        attended = attention(*self.map_row_blocks(self._project_qkv, hidden, cos, sin)).flatten(1)
        return self.map_row_blocks(self._output_and_mlp, attended, hidden)

    def _project_qkv(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        return self.attn(self.norm1(hidden), cos, sin)  # type: ignore[no-any-return]

    def _output_and_mlp(self, attended: Tensor, hidden: Tensor) -> Tensor:
        hidden = self.attn.proj.add_residual(attended, hidden)
        return self.mlp(self.norm2(hidden), hidden)  # type: ignore[no-any-return]


class PatchMerger(RowChunked):
    """Merges each square of patches into one token of the language model's size.

    Args:
        config: The vision tower.
        norm_after_merge: Whether the norm is over a merged square, as in the DeepStack mergers, or over each patch.
    """

    def __init__(self, config: VisionConfig, *, norm_after_merge: bool) -> None:
        super().__init__()
        self.merged_size = config.hidden_size * config.spatial_merge_size**2
        self.norm_after_merge = norm_after_merge
        self.norm = LayerNorm(self.merged_size if norm_after_merge else config.hidden_size, eps=NORM_EPS)
        self.linear_fc1 = Linear(self.merged_size, self.merged_size)
        self.linear_fc2 = Linear(self.merged_size, config.out_hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Merge patches.

        Args:
            hidden: (num_patches, hidden_size); the patches of a merged square are consecutive.

        Returns:
            (num_patches / spatial_merge_size ** 2, out_hidden_size).
        """
        if self.norm_after_merge:
            merged = self.norm(hidden.view(-1, self.merged_size))
        else:
            merged = self.norm(hidden).view(-1, self.merged_size)
        return self.map_row_blocks(self._mlp, merged)

    def _mlp(self, merged: Tensor) -> Tensor:
        return self.linear_fc2(self.linear_fc1.gelu(merged))  # type: ignore[no-any-return]


class VisionModel(nn.Module):
    """The vision tower, on any number of images and videos at once; their patches form one row without padding.

    Args:
        config: The vision tower.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = Embedding(config.num_position_embeddings, config.hidden_size)
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.merger = PatchMerger(config, norm_after_merge=False)
        self.deepstack_merger_list = nn.ModuleList(
            PatchMerger(config, norm_after_merge=True) for _ in config.deepstack_visual_indexes
        )

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> VisionFeatures:
        """Encode images and videos.

        Args:
            patches: (num_patches, patch_dim), of all media in turn; within a frame, the patches of each square that is
                merged are consecutive.
            grids: The grid of each image or video.

        Returns:
            Features of all merged tokens, in the order of the media.
        """
        device = patches.device
        hidden = self.patch_embed(patches) + self.position_embeddings(grids)
        head_dim = self.config.hidden_size // self.config.num_heads
        angles = torch.cat(
            [
                rotary_angles(height, width, head_dim, self.config.spatial_merge_size, device)
                for frames, height, width in grids
                for _ in range(frames)
            ]
        )
        cos, sin = angles.cos(), angles.sin()
        attention = prepare_attention(frame_layout(grids), device, hidden.dtype, causal=False)
        deepstack: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, attention, cos, sin)
            if index in self.config.deepstack_visual_indexes:
                deepstack.append(self.deepstack_merger_list[len(deepstack)](hidden))
        return VisionFeatures(self.merger(hidden), tuple(deepstack))

    def position_embeddings(self, grids: Sequence[Grid]) -> Tensor:
        """Interpolate the learned position table bilinearly to the size of each grid.

        Args:
            grids: The grid of each image or video.

        Returns:
            (num_patches, hidden_size), in the order of the patches.
        """
        table = self.pos_embed.weight
        table_side = round(self.config.num_position_embeddings**0.5)
        corners_of_frames = [
            bilinear_corners(height, width, table_side, self.config.spatial_merge_size, table.device)
            for frames, height, width in grids
            for _ in range(frames)
        ]
        indices, weights = (torch.cat(parts, dim=1) for parts in zip(*corners_of_frames, strict=True))
        first, *others = table[indices].mul_(weights.to(table.dtype)[..., None])
        # Added in the order of the reference, so that float32 sums are the same to the last bit.
        embeddings: Tensor = first + others[0]
        return embeddings.add_(others[1]).add_(others[2])


def frame_layout(grids: Sequence[Grid]) -> AttentionLayout:
    """Return a layout with one segment for each frame pair, whose patches attend to one another.

    Args:
        grids: The grid of each image or video.

    Returns:
        The layout, without links.
    """
    return AttentionLayout(tuple(height * width for frames, height, width in grids for _ in range(frames)))

"""The vision tower: patches to one vector per merged 2 x 2 block, and the deepstack features beside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from qwen3vl.model.attention.layout import AttentionLayout, move
from qwen3vl.model.attention.sdpa import Attend, attention
from qwen3vl.model.config import VisionConfig
from qwen3vl.model.layers.elementwise import Elementwise, rotate_wide
from qwen3vl.model.layers.linear import Linear, RowChunked
from qwen3vl.types import Grid


class VisionFeatures(NamedTuple):
    """`tokens` is (merged tokens, text width); `deepstack` holds one such tensor for each early text layer."""

    tokens: Tensor
    deepstack: tuple[Tensor, ...]

    def take(self, rows: Tensor) -> VisionFeatures:
        """The features of these merged tokens, in this order."""
        return VisionFeatures(self.tokens[rows], tuple(layer[rows] for layer in self.deepstack))


class PatchEmbedding(nn.Module):
    """A convolution whose kernel equals its stride: the same as one matrix product.

    The weight keeps the shape of the published Conv3d, (hidden, channels, frames, patch, patch), whose
    row-major order is that of the flattened patches.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(
            config.channels, config.hidden, kernel_size=(config.temporal_patch, config.patch, config.patch)
        )

    def forward(self, patches: Tensor) -> Tensor:
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Full attention within each frame."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = Linear(config.hidden, 3 * config.hidden)
        self.proj = Linear(config.hidden, config.hidden)
        self.rotate = Elementwise(rotate_wide)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, (patches, heads, head_dim) each."""
        query, key, value = self.qkv(hidden).unflatten(-1, (3, self.heads, -1)).unbind(1)
        return self.rotate(query, cos, sin), self.rotate(key, cos, sin), value


class MLP(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.linear_fc1 = Linear(config.hidden, config.mlp)
        self.linear_fc2 = Linear(config.mlp, config.hidden)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return self.linear_fc2.plus(self.linear_fc1.gelu(hidden, "tanh"), residual)


class Block(RowChunked):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.norm2 = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attn = Attention(config)
        self.mlp = MLP(config)

    def forward(self, hidden: Tensor, attend: Attend, cos: Tensor, sin: Tensor) -> Tensor:
        query, key, value = self.map_row_blocks(self._project_qkv, hidden, cos, sin)
        return self.map_row_blocks(self._output_and_mlp, attend(query, key, value).flatten(1), hidden)

    def _project_qkv(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        return self.attn(self.norm1(hidden), cos, sin)  # type: ignore[no-any-return]

    def _output_and_mlp(self, seen: Tensor, hidden: Tensor) -> Tensor:
        hidden = self.attn.proj.plus(seen, hidden)
        return self.mlp(self.norm2(hidden), hidden)  # type: ignore[no-any-return]


class Merger(RowChunked):
    """Joins each merge x merge block of patches into one vector of the text model's width."""

    def __init__(self, config: VisionConfig, *, norm_merged: bool) -> None:
        super().__init__()
        self.merged = config.hidden * config.merge**2
        self.norm_merged = norm_merged
        self.norm = nn.LayerNorm(self.merged if norm_merged else config.hidden, eps=1e-6)
        self.linear_fc1 = Linear(self.merged, self.merged)
        self.linear_fc2 = Linear(self.merged, config.out)

    def forward(self, hidden: Tensor) -> Tensor:
        if self.norm_merged:
            hidden = self.norm(hidden.view(-1, self.merged))
        else:
            hidden = self.norm(hidden).view(-1, self.merged)
        return self.map_row_blocks(lambda rows: self.linear_fc2(self.linear_fc1.gelu(rows)), hidden)  # type: ignore[no-any-return]


class VisionModel(nn.Module):
    """Encodes any number of pictures and clips at once; their patches lie in one row, unpadded."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = PatchEmbedding(config)
        self.pos_embed = nn.Embedding(config.positions, config.hidden)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.merger = Merger(config, norm_merged=False)
        self.deepstack_merger_list = nn.ModuleList(Merger(config, norm_merged=True) for _ in config.deepstack)

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> VisionFeatures:
        """`patches` is (sum of t * h * w, channels * frames * patch * patch) in merge-block order."""
        device = patches.device
        hidden = self.patch_embed(patches) + self.position_embeddings(grids)
        head_dim = self.config.hidden // self.config.heads
        angles = [
            _angles(height, width, head_dim, self.config.merge, device).repeat(frames, 1)
            for frames, height, width in grids
        ]
        cos, sin = torch.cat(angles).cos(), torch.cat(angles).sin()
        attend = attention(frames_of(grids), device, hidden.dtype, causal=False)
        deepstack: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            hidden = block(hidden, attend, cos, sin)
            if index in self.config.deepstack:
                deepstack.append(self.deepstack_merger_list[len(deepstack)](hidden))
        return VisionFeatures(self.merger(hidden), tuple(deepstack))

    def position_embeddings(self, grids: Sequence[Grid]) -> Tensor:
        """The learned square table, interpolated bilinearly to each grid: (patches, hidden)."""
        weight = self.pos_embed.weight
        side = round(self.config.positions**0.5)
        rows = []
        for frames, height, width in grids:
            index, share = _interpolation(height, width, side, self.config.merge, weight.device)
            corners = weight[index] * share.to(weight.dtype)[..., None]
            # Added in the order of the reference, so that float32 sums are the same to the last bit.
            frame = corners[0] + corners[1] + corners[2] + corners[3]
            rows.append(frame.repeat(frames, 1))
        return torch.cat(rows)


def frames_of(grids: Sequence[Grid]) -> AttentionLayout:
    """A path for each frame pair: its patches attend to one another."""
    return AttentionLayout(tuple(height * width for frames, height, width in grids for _ in range(frames)))


def _merge_order(plane: Tensor, merge: int) -> Tensor:
    """A (height, width) plane flattened block by block, as the patches lie."""
    height, width = plane.shape
    return plane.view(height // merge, merge, width // merge, merge).transpose(1, 2).flatten()


# Tables of the last sizes, on their device.  They outlive the inference that makes them: they are made as ordinary
# tensors, so that training may use them.


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _angles(height: int, width: int, head_dim: int, merge: int, device: torch.device) -> Tensor:
    """Rotary angles of a frame's patches, (height * width, head_dim / 2): the row's frequencies, then the column's."""
    quarter = torch.arange(0, head_dim // 2, 2, dtype=torch.float32) / (head_dim // 2)
    frequencies = 1.0 / 10000.0**quarter
    rows = _merge_order(torch.arange(height)[:, None].expand(height, width), merge)
    columns = _merge_order(torch.arange(width)[None, :].expand(height, width), merge)
    return move(torch.cat((rows[:, None] * frequencies, columns[:, None] * frequencies), dim=-1), device)


@lru_cache(maxsize=64)
@torch.inference_mode(mode=False)
def _interpolation(height: int, width: int, side: int, merge: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The four table rows around each patch, and their shares: both (4, height * width)."""
    y, x = torch.linspace(0, side - 1, height), torch.linspace(0, side - 1, width)
    top, left = y.int(), x.int()
    bottom, right = (top + 1).clip(max=side - 1), (left + 1).clip(max=side - 1)
    dy, dx = (y - top)[:, None], (x - left)[None, :]
    corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
    shares = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    index = torch.stack([_merge_order(row[:, None] * side + column[None, :], merge) for row, column in corners])
    share = torch.stack([_merge_order(share, merge) for share in shares])
    return move(index.long(), device), move(share, device)

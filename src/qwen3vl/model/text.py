"""The language model over one packed row of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.attention.sdpa import Attend, attention
from qwen3vl.model.config import TextConfig
from qwen3vl.model.layers.elementwise import Elementwise, gate, norm, norm_and_rotate
from qwen3vl.model.layers.linear import Linear, RowChunked


class RMSNorm(nn.Module):
    """Root mean square norm over the last axis, in float32 or wider."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.work = Elementwise(norm)

    def forward(self, values: Tensor) -> Tensor:
        return self.work(values, self.weight, self.eps)  # type: ignore[no-any-return]


class HeadNorm(RMSNorm):
    """Root mean square norm of each head, followed by rotary positions."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__(size, eps)
        self.work = Elementwise(norm_and_rotate)

    def rotated(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return self.work(heads, self.weight, self.eps, cos, sin)  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Grouped-query attention with normed heads and rotary positions."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        width, bias = config.head_dim, config.attention_bias
        self.q_proj = Linear(config.hidden, config.heads * width, bias=bias)
        self.k_proj = Linear(config.hidden, config.kv_heads * width, bias=bias)
        self.v_proj = Linear(config.hidden, config.kv_heads * width, bias=bias)
        self.o_proj = Linear(config.heads * width, config.hidden, bias=bias)
        self.q_norm = HeadNorm(width, config.norm_eps)
        self.k_norm = HeadNorm(width, config.norm_eps)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim)."""
        heads = (-1, self.head_dim)
        query = self.q_norm.rotated(self.q_proj(hidden).unflatten(-1, heads), cos, sin)
        key = self.k_norm.rotated(self.k_proj(hidden).unflatten(-1, heads), cos, sin)
        return query, key, self.v_proj(hidden).unflatten(-1, heads)


class MLP(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden, config.mlp, bias=False)
        self.up_proj = Linear(config.hidden, config.mlp, bias=False)
        self.down_proj = Linear(config.mlp, config.hidden, bias=False)
        self.gate = Elementwise(gate)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        gated = self.gate_proj.silu_mul(hidden, self.up_proj, self.gate)
        return self.down_proj.plus(gated, residual)


class Layer(RowChunked):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden, config.norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden, config.norm_eps)

    def forward(self, hidden: Tensor, attend: Attend, cos: Tensor, sin: Tensor, wanted: Tensor | None = None) -> Tensor:
        """All rows, or those that are wanted: nobody attends to the last layer's."""
        query, key, value = self.map_row_blocks(self._project_qkv, hidden, cos, sin)
        seen = attend(query, key, value).flatten(1)
        if wanted is not None:
            seen, hidden = seen[wanted], hidden[wanted]
        return self.map_row_blocks(self._output_and_mlp, seen, hidden)

    def _project_qkv(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        return self.self_attn(self.input_layernorm(hidden), cos, sin)  # type: ignore[no-any-return]

    def _output_and_mlp(self, seen: Tensor, hidden: Tensor) -> Tensor:
        hidden = self.self_attn.o_proj.plus(seen, hidden)
        return self.mlp(self.post_attention_layernorm(hidden), hidden)  # type: ignore[no-any-return]


class TextModel(nn.Module):
    """Token embeddings, layers and the final norm."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocabulary, config.hidden)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.hidden, config.norm_eps)

    def forward(
        self,
        hidden: Tensor,
        positions: Tensor,
        layout: AttentionLayout,
        visual: Tensor,
        deepstack: tuple[Tensor, ...],
        wanted: Tensor,
    ) -> Tensor:
        """Runs the layers and norms the rows that are wanted.

        `hidden` is (tokens, hidden) with vision features in place; `positions` is (3, tokens): time,
        height, width; `visual` is the places of vision tokens, to which `deepstack[i]` is added after
        layer i; `wanted` is the places to return.  Returns (wanted, hidden).
        """
        cos, sin = self.rotary(positions, hidden.dtype)
        attend = attention(layout, hidden.device, hidden.dtype, causal=True)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            if index == last and index >= len(deepstack):
                return self.norm(layer(hidden, attend, cos, sin, wanted))  # type: ignore[no-any-return]
            hidden = layer(hidden, attend, cos, sin)
            if index < len(deepstack):
                hidden = hidden.index_add(0, visual, deepstack[index].to(hidden.dtype))
        return self.norm(hidden[wanted])  # type: ignore[no-any-return]

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin, each (tokens, head_dim / 2), of interleaved mRoPE.

        Frequency i belongs to height where i % 3 == 1 and to width where i % 3 == 2, as far as their
        sections reach, and to time elsewhere.
        """
        half = self.config.head_dim // 2
        steps = torch.arange(half, device=positions.device)
        frequencies = 1.0 / self.config.rope_theta ** (steps.float() * 2 / self.config.head_dim)
        axis = torch.zeros_like(steps)
        for kind in (1, 2):
            axis[kind : 3 * self.config.mrope[kind] : 3] = kind
        angles = positions.float()[axis].T * frequencies
        return angles.cos().to(dtype), angles.sin().to(dtype)

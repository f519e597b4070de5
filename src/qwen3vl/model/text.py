"""The language model, on one packed row of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qwen3vl.model.attention.base import AttentionFunction
from qwen3vl.model.config import TextConfig
from qwen3vl.model.layers.elementwise import Elementwise, rms_norm, rms_norm_and_rotate, swiglu
from qwen3vl.model.layers.initialization import Embedding
from qwen3vl.model.layers.linear import Linear
from qwen3vl.model.layers.row_chunked import RowChunked
from qwen3vl.model.transfer import copy_to_device


class RMSNorm(nn.Module):
    """Root mean square norm over the last axis (arXiv 1910.07467).

    Args:
        size: Size of the last axis.
        eps: Added to the mean square.
    """

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps
        self.normalize = Elementwise(rms_norm)

    def forward(self, values: Tensor) -> Tensor:
        """Normalize.

        Args:
            values: (..., size).

        Returns:
            (..., size), in the dtype of `values`.
        """
        return self.normalize(values, self.weight, self.eps)  # type: ignore[no-any-return]


class HeadNorm(nn.Module):
    """RMSNorm of every query or key head (QK-Norm), followed by rotary position embedding.

    Args:
        head_dim: Size of a head.
        eps: Added to the mean square.
    """

    def __init__(self, head_dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))
        self.eps = eps
        self.normalize_and_rotate = Elementwise(rms_norm_and_rotate)

    def forward(self, heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Normalize and rotate.

        Args:
            heads: (num_tokens, num_heads, head_dim).
            cos: (num_tokens, head_dim / 2).
            sin: (num_tokens, head_dim / 2).

        Returns:
            (num_tokens, num_heads, head_dim).
        """
        return self.normalize_and_rotate(heads, self.weight, self.eps, cos, sin)  # type: ignore[no-any-return]


class TextAttention(nn.Module):
    """The projections of grouped-query attention (GQA, arXiv 2305.13245); attention itself is an `AttentionFunction`.

    Args:
        config: The language model.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        query_size, kv_size = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        self.q_proj = Linear(config.hidden_size, query_size, bias=config.attention_bias)
        self.k_proj = Linear(config.hidden_size, kv_size, bias=config.attention_bias)
        self.v_proj = Linear(config.hidden_size, kv_size, bias=config.attention_bias)
        self.o_proj = Linear(query_size, config.hidden_size, bias=config.attention_bias)
        self.q_norm = HeadNorm(config.head_dim, config.rms_norm_eps)
        self.k_norm = HeadNorm(config.head_dim, config.rms_norm_eps)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Project to queries, keys and values.

        Args:
            hidden: (num_tokens, hidden_size), normalized.
            cos: (num_tokens, head_dim / 2).
            sin: (num_tokens, head_dim / 2).

        Returns:
            Queries, (num_tokens, num_heads, head_dim), and keys and values, (num_tokens, num_kv_heads, head_dim).
        """
        split_heads = (-1, self.head_dim)
        query = self.q_norm(self.q_proj(hidden).unflatten(-1, split_heads), cos, sin)
        key = self.k_norm(self.k_proj(hidden).unflatten(-1, split_heads), cos, sin)
        return query, key, self.v_proj(hidden).unflatten(-1, split_heads)


class TextMLP(nn.Module):
    """Feed-forward layer with SwiGLU (arXiv 2002.05202).

    Args:
        config: The language model.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.swiglu = Elementwise(swiglu)

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual.

        Args:
            hidden: (num_tokens, hidden_size), normalized.
            residual: (num_tokens, hidden_size).

        Returns:
            (num_tokens, hidden_size).
        """
        activated = self.gate_proj.silu_mul(hidden, self.up_proj, self.swiglu)
        return self.down_proj.add_residual(activated, residual)


class TextLayer(RowChunked):
    """A decoder layer with norms before attention and MLP.

    Args:
        config: The language model.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.self_attn = TextAttention(config)
        self.mlp = TextMLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        hidden: Tensor,
        attention: AttentionFunction,
        cos: Tensor,
        sin: Tensor,
        output_indices: Tensor | None = None,
    ) -> Tensor:
        """Run the layer.

        Args:
            hidden: (num_tokens, hidden_size).
            attention: Attention for the row's layout.
            cos: (num_tokens, head_dim / 2).
            sin: (num_tokens, head_dim / 2).
            output_indices: (num_outputs,) int64: compute only these tokens after attention. None computes all.

        Returns:
            (num_tokens, hidden_size), or (num_outputs, hidden_size).
        """
        attended = attention(*self.map_row_blocks(self._project_qkv, hidden, cos, sin)).flatten(1)
        if output_indices is not None:
            attended, hidden = attended[output_indices], hidden[output_indices]
        return self.map_row_blocks(self._output_and_mlp, attended, hidden)

    def _project_qkv(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        return self.self_attn(self.input_layernorm(hidden), cos, sin)  # type: ignore[no-any-return]

    def _output_and_mlp(self, attended: Tensor, hidden: Tensor) -> Tensor:
        hidden = self.self_attn.o_proj.add_residual(attended, hidden)
        return self.mlp(self.post_attention_layernorm(hidden), hidden)  # type: ignore[no-any-return]


class TextModel(nn.Module):
    """The language model: token embedding, layers and final norm.

    Args:
        config: The language model.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._rotary_frequencies: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def forward(
        self,
        hidden: Tensor,
        position_ids: Tensor,
        attention: AttentionFunction,
        vision_token_indices: Tensor | None,
        deepstack: tuple[Tensor, ...],
        output_indices: Tensor,
    ) -> Tensor:
        """Run all layers on a packed row, and the final norm on the tokens that are returned.

        Args:
            hidden: Token embeddings with vision features in place, (num_tokens, hidden_size).
            position_ids: (3, num_tokens) int64: position in time, height and width.
            attention: Attention for the row's layout.
            vision_token_indices: (num_vision_tokens,) int64: the tokens that stand for images and videos; None if
                `deepstack` is empty.
            deepstack: The features that are added to the vision tokens after layer 0, 1, ... (DeepStack, arXiv
                2406.04334), each (num_vision_tokens, hidden_size).
            output_indices: (num_outputs,) int64: the tokens to return.

        Returns:
            (num_outputs, hidden_size).
        """
        cos, sin = self.rotary_embedding(position_ids, hidden.dtype)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            if index == last and index >= len(deepstack):
                # No layer attends to this one's output, so only the tokens to return are computed.
                return self.norm(layer(hidden, attention, cos, sin, output_indices))  # type: ignore[no-any-return]
            hidden = layer(hidden, attention, cos, sin)
            if index < len(deepstack) and vision_token_indices is not None:
                hidden.index_add_(0, vision_token_indices, deepstack[index].to(hidden.dtype))
        return self.norm(hidden[output_indices])  # type: ignore[no-any-return]

    def rotary_embedding(self, position_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Compute interleaved multimodal rotary position embedding (MRoPE).

        MRoPE (Qwen2-VL, arXiv 2409.12191) assigns each rotary frequency to time, height or width. Qwen3-VL (arXiv
        2511.21631) interleaves them: frequency i belongs to height if i % 3 == 1 and to width if i % 3 == 2, up to
        three times the size of their section, and to time otherwise.

        Args:
            position_ids: (3, num_tokens) int64: position in time, height and width.
            dtype: The dtype of the result.

        Returns:
            Cosines and sines of the angles, each (num_tokens, head_dim / 2).
        """
        device = position_ids.device
        if device not in self._rotary_frequencies:
            # What the first thread stores stays: CUDA graphs refer to its memory as long as the model exists.
            self._rotary_frequencies.setdefault(device, rotary_frequencies(self.config, device))
        frequencies, axis = self._rotary_frequencies[device]
        angles = position_ids[axis].t() * frequencies
        return angles.cos().to(dtype), angles.sin().to(dtype)


@torch.inference_mode(mode=False)
def rotary_frequencies(config: TextConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """Compute the frequencies of `TextModel.rotary_embedding`.

    Args:
        config: The language model.
        device: The device of the result.

    Returns:
        The frequencies, (head_dim / 2,) float32, and the axis that each belongs to, (head_dim / 2,) int64.
    """
    frequency_indices = torch.arange(config.head_dim // 2)
    frequencies = 1.0 / config.rope_theta ** (frequency_indices.float() * 2 / config.head_dim)
    axis = torch.zeros_like(frequency_indices)
    for spatial_axis in (1, 2):
        axis[spatial_axis : 3 * config.mrope_section[spatial_axis] : 3] = spatial_axis
    return copy_to_device(frequencies, device), copy_to_device(axis, device)

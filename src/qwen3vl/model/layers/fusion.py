"""Language model layers with fewer and larger kernels, for GPUs.

On a GPU, a forward pass over a short query takes as long as its kernels take to launch. Here queries, keys and values
are one product, gates and up-projections another, the norm and rotation of queries and keys one sequence of operations,
and the last product of a step is added to the residual as it is written. On CPUs a launch costs nothing, and separate
products are at least as fast.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from qwen3vl.model.layers.elementwise import Elementwise, rms_norm_and_rotate_first_heads
from qwen3vl.model.layers.linear import Linear, LinearBase
from qwen3vl.model.text import TextAttention, TextLayer, TextMLP, TextModel


def fuse_text_layers(model: TextModel) -> None:
    """Convert the layers of a language model, in place, one after the other. Linear layers may be quantized.

    Call this before `compile_elementwise`.

    Args:
        model: The model, used for inference only from now on.
    """
    for layer in cast("Iterable[TextLayer]", model.layers):
        layer.register_module("self_attn", FusedTextAttention(layer.self_attn))
        layer.register_module("mlp", FusedTextMLP(layer.mlp))


class FusedTextAttention(nn.Module):
    """`TextAttention` with one product for queries, keys and values. For inference only.

    The norm of queries and keys is rounded to the dtype of the activations before it is multiplied by its weight, as in
    transformers.

    Args:
        attention: The layer to convert.
    """

    norm_weight: Tensor

    def __init__(self, attention: TextAttention) -> None:
        super().__init__()
        self.head_dim = attention.head_dim
        self.num_heads = attention.q_proj.out_features // self.head_dim
        num_kv_heads = attention.k_proj.out_features // self.head_dim
        self.qkv_proj = _join_linears([attention.q_proj, attention.k_proj, attention.v_proj])
        self.o_proj = attention.o_proj
        self.o_proj.overwrites_residual = True
        self.eps = attention.q_norm.eps
        norms = ((attention.q_norm, self.num_heads), (attention.k_norm, num_kv_heads))
        norm_weight = torch.cat([norm.weight.detach().expand(num_heads, -1) for norm, num_heads in norms])
        self.register_buffer("norm_weight", norm_weight)
        self.normalize_and_rotate = Elementwise(rms_norm_and_rotate_first_heads)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, ...]:
        """Project to queries, keys and values; see `TextAttention.forward`.

        Args:
            hidden: (num_tokens, hidden_size), normalized.
            cos: (num_tokens, head_dim / 2).
            sin: (num_tokens, head_dim / 2).

        Returns:
            Queries, (num_tokens, num_heads, head_dim), and keys and values, (num_tokens, num_kv_heads, head_dim).
        """
        heads = self.qkv_proj(hidden).unflatten(-1, (-1, self.head_dim))
        rotated = self.normalize_and_rotate(heads, self.norm_weight, self.eps, cos, sin)
        return rotated[:, : self.num_heads], rotated[:, self.num_heads :], heads[:, rotated.shape[1] :]


class FusedTextMLP(nn.Module):
    """`TextMLP` with one product for gates and up-projections. For inference only.

    Args:
        mlp: The layer to convert.
    """

    def __init__(self, mlp: TextMLP) -> None:
        super().__init__()
        self.gate_up_proj = _join_linears([mlp.gate_proj, mlp.up_proj])
        self.down_proj = mlp.down_proj
        self.down_proj.overwrites_residual = True
        self.swiglu = mlp.swiglu

    def forward(self, hidden: Tensor, residual: Tensor) -> Tensor:
        """Apply the layer and add the residual; see `TextMLP.forward`.

        Args:
            hidden: (num_tokens, hidden_size), normalized.
            residual: (num_tokens, hidden_size), which may be overwritten.

        Returns:
            (num_tokens, hidden_size).
        """
        gate, up = self.gate_up_proj(hidden).chunk(2, dim=-1)
        return self.down_proj.add_residual(self.swiglu(gate, up), residual)


def _join_linears(layers: Sequence[LinearBase]) -> LinearBase:
    """Return a layer whose output rows are those of several layers of one class, one after the other."""
    first = layers[0]
    with torch.device("meta"):
        joined: LinearBase = Linear(
            first.in_features, sum(layer.out_features for layer in layers), bias=first.bias is not None
        )
        if not isinstance(first, Linear):
            joined = type(first)(joined)
    tensors = [layer.state_dict() for layer in layers]
    joined.load_state_dict({name: _concatenate([parts[name] for parts in tensors]) for name in tensors[0]}, assign=True)
    return joined.eval().requires_grad_(False)


def _concatenate(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate rows by their bytes, since not every torch concatenates 8-bit floats."""
    if parts[0].element_size() > 1:
        return torch.cat(list(parts))
    return torch.cat([part.view(torch.uint8) for part in parts]).view(parts[0].dtype)

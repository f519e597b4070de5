"""Functions that the model's layers share and that fuse well: RMSNorm, rotary embedding and SwiGLU.

They are bound by memory bandwidth rather than by arithmetic. In the model they are wrapped in `Elementwise` modules, so
that `qwen3vl.model.layers.compilation` can replace them by fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import rms_norm as torch_rms_norm
from torch.nn.functional import silu


class Elementwise(nn.Module):
    """A function as a module of the model.

    Args:
        function: The function, on tensors.

    Attributes:
        eager_function: The function that was passed.
        function: The function that is called; `compile_elementwise` replaces it.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.eager_function = function
        self.function = function

    def forward(self, *arguments: Any) -> Any:
        """Call the function.

        Args:
            *arguments: The function's arguments.

        Returns:
            The function's result.
        """
        return self.function(*arguments)


def rms_norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Normalize by the root mean square over the last axis (Zhang and Sennrich 2019, arXiv 1910.07467).

    Computes in float32 or wider, the product with the weight included; transformers rounds to the dtype of `values`
    before that product.

    Args:
        values: (..., size).
        weight: (size,), or (num_heads, size) with a row for each; in the dtype of `values`, else torch's slow path
            runs.
        eps: Added to the mean square.

    Returns:
        (..., size), in the dtype of `values`.
    """
    if values.device.type == "cpu" and values.dtype != torch.float64:
        # On the CPU torch composes rms_norm of more passes over memory than this, and mixed dtypes are slow there.
        wide = values.float()
        scale = (vector_norm(wide, dim=-1, keepdim=True).square() / values.shape[-1] + eps).rsqrt()
        return (wide * scale * weight.float()).to(values.dtype)  # type: ignore[no-any-return]
    return torch_rms_norm(values, weight.shape, weight, eps)


def rms_norm_and_rotate(values: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """Normalize every head with `rms_norm`, then apply `apply_rotary`.

    Args:
        values: (num_tokens, num_heads, head_dim).
        weight: (head_dim,).
        eps: Added to the mean square.
        cos: (num_tokens, head_dim / 2), in the dtype of `values`: nothing is converted.
        sin: As `cos`.

    Returns:
        (num_tokens, num_heads, head_dim), in the dtype of `values`.
    """
    return apply_rotary(rms_norm(values, weight, eps), cos, sin)


def rms_norm_and_rotate_first_heads(values: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """Normalize heads, each with its own weight, and apply `apply_rotary`; for heads whose last ones stay as they are.

    On a GPU the last heads are normalized in vain: without them, torch's kernel would copy the first ones.

    Args:
        values: (num_tokens, num_heads, head_dim), contiguous.
        weight: (num_first_heads, head_dim).
        eps: Added to the mean square.
        cos: (num_tokens, head_dim / 2), in the dtype of `values`.
        sin: As `cos`.

    Returns:
        (num_tokens, num_first_heads, head_dim), in the dtype of `values`.
    """
    if values.device.type == "cpu":
        return rms_norm_and_rotate(values[:, : len(weight)], weight, eps, cos, sin)
    normalized = torch_rms_norm(values, values.shape[-1:], None, eps)[:, : len(weight)]
    return apply_rotary(normalized.mul_(weight), cos, sin)


def apply_rotary(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply rotary position embedding (Su et al. 2021, arXiv 2104.09864).

    Component i is rotated together with component i + head_dim / 2, as in transformers' `rotate_half`.

    Args:
        values: (num_tokens, num_heads, head_dim).
        cos: (num_tokens, head_dim / 2), in the dtype of `values`, or in a wider one.
        sin: As `cos`.

    Returns:
        A new tensor, (num_tokens, num_heads, head_dim), in the dtype of `cos`.
    """
    halves = values.view(*values.shape[:-1], 2, -1)
    first_half, second_half = halves.unbind(-2)
    rotated = halves * cos[:, None, None]
    rotated[..., 0, :].addcmul_(second_half, sin[:, None], value=-1)
    rotated[..., 1, :].addcmul_(first_half, sin[:, None])
    return rotated.view(values.shape)


def apply_rotary_float32(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply `apply_rotary` in float32, as the reference does in the vision tower.

    Args:
        values: (num_tokens, num_heads, head_dim).
        cos: (num_tokens, head_dim / 2), float32.
        sin: (num_tokens, head_dim / 2), float32.

    Returns:
        (num_tokens, num_heads, head_dim), in the dtype of `values`.
    """
    return apply_rotary(values, cos, sin).to(values.dtype)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """Return `silu(gate) * up`, the activation of SwiGLU (Shazeer 2020, arXiv 2002.05202).

    Args:
        gate: (num_rows, intermediate_size). Without gradients, the result takes its place in memory.
        up: (num_rows, intermediate_size).

    Returns:
        (num_rows, intermediate_size).
    """
    if torch.is_grad_enabled():
        return silu(gate) * up
    return silu(gate, inplace=True).mul_(up)

"""Elementwise work: what stands between matrix products and moves memory rather than computing.

Plain functions, which `compile_elementwise` replaces by torch.compile's fused kernels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm
from torch.nn.functional import rms_norm, silu

log = logging.getLogger(__name__)


def norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm over the last axis, in float32 or wider."""
    if values.device.type == "cpu" and values.dtype == torch.float32:  # torch's own is made of more passes there
        scale = (vector_norm(values, dim=-1, keepdim=True).square() / values.shape[-1] + eps).rsqrt()
        return values * scale * weight  # type: ignore[no-any-return]
    return rms_norm(values, weight.shape, weight, eps)


def norm_and_rotate(values: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> Tensor:
    """Normed heads (tokens, heads, dim) with rotary positions; `cos` and `sin` are (tokens, dim / 2)."""
    return rotate(norm(values, weight, eps), cos, sin)


def rotate(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on (tokens, heads, dim), in the dtype of the values."""
    halves = values.view(*values.shape[:-1], 2, -1)
    first, second = halves.unbind(-2)
    turned = halves * cos[:, None, None]
    turned[..., 0, :].addcmul_(second, sin[:, None], value=-1)
    turned[..., 1, :].addcmul_(first, sin[:, None])
    return turned.view(values.shape)


def rotate_wide(values: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same in float32 or wider."""
    return rotate(values.to(torch.promote_types(values.dtype, torch.float32)), cos, sin).to(values.dtype)


def gate(open_: Tensor, values: Tensor) -> Tensor:
    """SiLU of the first times the second."""
    return silu(open_) * values


class Elementwise(nn.Module):
    """A function as a part of a model, that may be compiled there."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.plain = function
        self.function = function

    def forward(self, *values: Any) -> Any:
        return self.function(*values)


def compile_elementwise(model: nn.Module) -> None:
    """Compiles all of a model's elementwise functions, at their first call; what cannot be compiled stays plain."""
    for module in model.modules():
        if isinstance(module, Elementwise):
            module.function = _compiled(module.plain)


@lru_cache(maxsize=16)
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    fast: Callable[..., Any] | None = None
    broken = False
    name = getattr(function, "__name__", repr(function))

    def call(*values: Any) -> Any:
        nonlocal fast, broken
        if not broken:
            try:
                fast = fast or torch.compile(function)
                return fast(*values)
            except Exception as error:  # no compiler, or one that is at odds with this torch
                reason = error
            # What else fails, for want of memory say, fails here too.
            found = function(*values)
            log.warning("%s is not compiled: %s", name, str(reason).partition("\n")[0])
            broken = True
            return found
        return function(*values)

    return call

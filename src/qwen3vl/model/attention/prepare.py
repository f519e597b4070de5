"""Choosing the implementation of attention for a layout and a device."""

from __future__ import annotations

import torch

from qwen3vl.model.attention.base import AttentionFunction
from qwen3vl.model.attention.batched import BatchedAttention
from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.attention.varlen import VarlenAttention
from qwen3vl.model.attention.varlen_kernels import VarlenKernel, select_varlen_kernel


def prepare_attention(
    layout: AttentionLayout, device: torch.device, dtype: torch.dtype, *, causal: bool
) -> AttentionFunction:
    """Return attention for a layout, to be called by every layer.

    Index tensors are copied to the device here, once, and not by every layer.

    Args:
        layout: The layout of the packed row.
        device: The device of queries, keys and values.
        dtype: Their dtype.
        causal: Whether a token attends only to itself and to earlier tokens of its segment.

    Returns:
        `VarlenAttention` on CUDA in 16 bits without gradients, if a kernel for it works; else `BatchedAttention`.
    """
    kernel = varlen_kernel(device, dtype)
    if kernel is not None:
        return VarlenAttention(layout, device, kernel, causal=causal)
    return BatchedAttention(layout, device, causal=causal)


def varlen_kernel(device: torch.device, dtype: torch.dtype) -> VarlenKernel | None:
    """Return the kernel for sequences of varying lengths that attention uses.

    Args:
        device: The device of queries, keys and values.
        dtype: Their dtype.

    Returns:
        The kernel; None without CUDA, in more than 16 bits, with gradients, or if no kernel works.
    """
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or torch.is_grad_enabled():
        return None
    return select_varlen_kernel(device, dtype)

"""Choosing the implementation of attention for a layout and a device."""

from __future__ import annotations

import torch

from qwen3vl.model.attention.base import AttentionFunction
from qwen3vl.model.attention.batched import BatchedAttention
from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.attention.varlen import VarlenAttention
from qwen3vl.model.attention.varlen_kernels import select_varlen_kernel


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
    half_precision = dtype in (torch.bfloat16, torch.float16)
    if (
        device.type == "cuda"
        and half_precision
        and not torch.is_grad_enabled()
        and (kernel := select_varlen_kernel(device, dtype))
    ):
        return VarlenAttention(layout, device, kernel, causal=causal)
    return BatchedAttention(layout, device, causal=causal)

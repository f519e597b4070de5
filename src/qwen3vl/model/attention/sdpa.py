"""Attention over packed rows: no padding, and what several sequences begin with stands once.

A row of tokens is cut into paths that lie side by side.  Each path attends to itself; a `PrefixLink` lets the rows of
paths that branch off another one attend to what that one begins with.  Every link is one softmax over its keys;
the softmaxes of a row are joined by their log-sum-exps, which is exact (as in cascade attention).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qwen3vl.model.attention.batching import batch_segments
from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink
from qwen3vl.model.attention.lse import attention_with_lse, merge_attention_states
from qwen3vl.model.attention.varlen import Varlen, select_varlen_kernel


class Attend(Protocol):
    """Attention over the rows of one layout.

    `query` is (tokens, heads, head_dim); `key` and `value` are (tokens, kv_heads, head_dim), where kv_heads divides
    heads.  Returns (tokens, heads, head_dim).  The scale is head_dim ** -0.5.
    """

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


def attention(layout: AttentionLayout, device: torch.device, dtype: torch.dtype, *, causal: bool) -> Attend:
    """Attention made ready for a layout on a device; what it needs there is moved once, not in each layer."""
    narrow = dtype in (torch.bfloat16, torch.float16)
    if (
        device.type == "cuda"
        and narrow
        and not torch.is_grad_enabled()
        and (kernel := select_varlen_kernel(device, dtype))
    ):
        return Varlen(layout, device, kernel, causal=causal)
    return Batched(layout, device, causal=causal)


class Batched:
    """Paths of one length that lie side by side share a call as a batch; each link is a call.

    Links of few keys are none: their keys are repeated (`runs.py`).
    """

    def __init__(self, layout: AttentionLayout, device: torch.device, *, causal: bool) -> None:
        self.causal = causal
        self.runs, self.links = batch_segments(layout, device)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts, weights = [], []
        for run in self.runs:
            q, k, v = (run.take(each) for each in (query, key, value))
            if self.links:
                out, sums = attention_with_lse(q, k, v, causal=self.causal)
                weights.append(run.own(sums))
            else:
                out = scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=q.shape[1] != k.shape[1])
            parts.append(run.own(out))
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        if not self.links:
            return joined
        total = torch.cat(weights)
        for link in self.links:
            keys = slice(link.first, link.last)
            q, k, v = (
                each.unsqueeze(0).transpose(1, 2) for each in (query[link.start : link.stop], key[keys], value[keys])
            )
            out, sums = attention_with_lse(q, k, v, causal=False)
            joined, total = _join(joined, total, link, out[0].transpose(0, 1), sums[0].transpose(0, 1))
        return joined


def _join(joined: Tensor, total: Tensor, link: PrefixLink, out: Tensor, sums: Tensor) -> tuple[Tensor, Tensor]:
    """Both softmaxes as the one over all their keys, in the rows of the link."""
    rows = slice(link.start, link.stop)
    both, both_sums = merge_attention_states(joined[rows], total[rows], out, sums)
    if torch.is_grad_enabled():
        return (
            torch.slice_scatter(joined, both, 0, link.start, link.stop),
            torch.slice_scatter(total, both_sums, 0, link.start, link.stop),
        )
    joined[rows], total[rows] = both, both_sums
    return joined, total

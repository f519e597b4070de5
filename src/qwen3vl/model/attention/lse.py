"""Attention with its log-sum-exps, and two of them over different keys made one."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

ROWS_AT_ONCE = 512
"""Queries whose scores are in memory together, where torch has no kernel that tells log-sum-exps."""


def attention_with_lse(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """(batch, heads, tokens, head_dim) each, keys and values with fewer heads or as many: the attention, and its
    log-sum-exps (batch, heads, tokens), in float32 or wider.

    With `causal`, as many queries as keys; a query sees the keys up to its own.
    """
    if torch.is_grad_enabled():  # torch's own kernels give none for the log-sum-exps
        return eager_attention_with_lse(query, key, value, causal=causal)
    if query.device.type == "cpu":
        if query.shape[1] != key.shape[1] and not _groups_heads():
            key, value = (each.repeat_interleave(query.shape[1] // each.shape[1], dim=1) for each in (key, value))
        out, sums = _flash(query, key, value, causal=causal)
        return out, sums.to(_wide(query.dtype))
    return blockwise_attention_with_lse(query, key, value, causal=causal)


def blockwise_attention_with_lse(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The same, ROWS_AT_ONCE queries at a time: all scores of a long path take more memory than the rest of a pass."""
    outs, sums = [], []
    for start in range(0, query.shape[2], ROWS_AT_ONCE):
        rows = query[:, :, start : start + ROWS_AT_ONCE]
        last = start + rows.shape[2] if causal else key.shape[2]
        out, own = eager_attention_with_lse(rows, key[:, :, :last], value[:, :, :last], causal=causal)
        outs.append(out)
        sums.append(own)
    return torch.cat(outs, dim=2), torch.cat(sums, dim=2)


def eager_attention_with_lse(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """The same, written out; with `causal` the queries are the last of the keys' places."""
    batch, heads, tokens, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(-1, -2)).to(_wide(query.dtype)) * width**-0.5
    if causal:
        places = torch.arange(key.shape[2], device=query.device)
        hidden = places > places[key.shape[2] - tokens :, None]
        scores = scores.unflatten(2, (-1, tokens)).masked_fill(hidden, -torch.inf).flatten(2, 3)
    sums = scores.logsumexp(-1, keepdim=True)
    out = (scores - sums).exp().to(value.dtype) @ value
    return out.reshape(batch, heads, tokens, width), sums.reshape(batch, heads, tokens)


def merge_attention_states(one: Tensor, one_sum: Tensor, other: Tensor, other_sum: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys from that over each, (tokens, heads, head_dim), and the log-sum-exps."""
    share = torch.sigmoid(other_sum - one_sum).unsqueeze(-1)
    both = torch.lerp(one.to(share.dtype), other.to(share.dtype), share).to(one.dtype)
    return both, torch.logaddexp(one_sum, other_sum)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _flash(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """torch's kernel for CPUs, of which `scaled_dot_product_attention` keeps the log-sum-exps to itself."""
    found: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
        query, key, value, 0.0, causal
    )
    return found


@cache
def _groups_heads() -> bool:
    """Whether that kernel takes fewer heads of keys than of queries: before torch 2.9 it misreads them."""
    query, others = (torch.linspace(-1, 1, heads * 6).view(1, heads, 3, 2) for heads in (4, 8))
    key = others[:, :2]  # what would be misread is memory of its own
    found, _ = _flash(query, key, key, causal=False)
    expected, _ = eager_attention_with_lse(query, key, key, causal=False)
    return bool(torch.allclose(found, expected, atol=1e-5))

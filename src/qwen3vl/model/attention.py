"""Attention over packed rows: no padding, and a prefix that stands once serves all that follow it.

A row of tokens is cut into segments.  Each segment attends causally to itself and wholly to its
ancestors.  Segments of one length behind one ancestor lie side by side, so that one kernel call serves
them all as a batch: a `Group`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True, slots=True)
class Group:
    """`count` adjacent segments of `length` tokens from `start` on, all behind the same ancestors.

    `ancestors` are (start, length) of the segments in front, the outermost first.
    """

    start: int
    count: int
    length: int
    ancestors: tuple[tuple[int, int], ...] = ()

    @property
    def stop(self) -> int:
        return self.start + self.count * self.length


def packed_attention(query: Tensor, key: Tensor, value: Tensor, groups: tuple[Group, ...], *, causal: bool) -> Tensor:
    """Attends within each group's segments and to their ancestors.

    `query` is (tokens, heads, head_dim); `key` and `value` are (tokens, kv_heads, head_dim), where
    kv_heads divides heads.  The groups cover the row from its first token to its last.  Returns
    (tokens, heads, head_dim).  The scale is head_dim ** -0.5.
    """
    return torch.cat([_attend(query, key, value, group, causal=causal) for group in groups])


def _attend(query: Tensor, key: Tensor, value: Tensor, group: Group, *, causal: bool) -> Tensor:
    rows = slice(group.start, group.stop)
    q = _batch(query[rows], group)
    k = _batch(key[rows], group)
    v = _batch(value[rows], group)
    mask = None
    if group.ancestors:
        k = torch.cat([*(_shared(key, place, group.count) for place in group.ancestors), k], dim=2)
        v = torch.cat([*(_shared(value, place, group.count) for place in group.ancestors), v], dim=2)
        # Queries are the last positions of their row: the causal triangle sits at the lower right.
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - q.shape[2])
    out = scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=mask,
        is_causal=causal and mask is None,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out.transpose(1, 2).flatten(0, 1)


def _batch(row: Tensor, group: Group) -> Tensor:
    """(count * length, heads, dim) as (count, heads, length, dim)."""
    return row.view(group.count, group.length, *row.shape[1:]).transpose(1, 2)


def _shared(row: Tensor, place: tuple[int, int], count: int) -> Tensor:
    """An ancestor's keys or values, seen by each of `count` segments: (count, heads, length, dim)."""
    start, length = place
    return row[start : start + length].transpose(0, 1).expand(count, -1, -1, -1)

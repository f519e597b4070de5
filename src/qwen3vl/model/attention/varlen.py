"""Attention over a packed row by GPU kernels for sequences of varying lengths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

import torch
from torch import Tensor

from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink
from qwen3vl.model.attention.lse import merge_attention_outputs
from qwen3vl.model.attention.varlen_kernels import VarlenKernel, cumulative_seqlens
from qwen3vl.model.transfer import copy_to_device

MAX_GATHERED_KEYS_PER_TOKEN = 4
"""Maximum number of keys that one call gathers, as a multiple of the row's tokens: links may share the same keys many
times over, and gathering copies them each time."""


class VarlenAttention:
    """Attention with one kernel call for all segments, and one or a few for each level of links.

    A level needs several calls if its links have more than `MAX_GATHERED_KEYS_PER_TOKEN` keys per token of the row.

    Args:
        layout: The layout of the packed row.
        device: The device of queries, keys and values.
        kernel: The kernel, as `select_varlen_kernel` returns it.
        causal: Whether a token attends only to itself and to earlier tokens of its segment.
    """

    def __init__(self, layout: AttentionLayout, device: torch.device, kernel: VarlenKernel, *, causal: bool) -> None:
        self.kernel = kernel
        self.causal = causal
        self.max_seqlen = max(layout.segment_lengths)
        self.cu_seqlens = cumulative_seqlens(layout.segment_lengths, device)
        self.link_calls = [
            _LinkCall(links, device)
            for _, links_of_level in groupby(layout.links, key=lambda link: link.level)
            for links in _group_links(links_of_level, MAX_GATHERED_KEYS_PER_TOKEN * layout.num_tokens)
        ]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute attention; see `AttentionFunction`.

        Args:
            query: (num_tokens, num_heads, head_dim).
            key: (num_tokens, num_kv_heads, head_dim).
            value: (num_tokens, num_kv_heads, head_dim).

        Returns:
            (num_tokens, num_heads, head_dim).
        """
        output, lse = self.kernel(
            query,
            key,
            value,
            self.cu_seqlens,
            self.cu_seqlens,
            self.max_seqlen,
            self.max_seqlen,
            self.causal,
            bool(self.link_calls),
        )
        for call in self.link_calls:
            link_output, link_lse = self.kernel(
                call.query_rows.gather(query),
                call.key_rows.gather(key),
                call.key_rows.gather(value),
                call.cu_seqlens_q,
                call.cu_seqlens_k,
                call.max_seqlen_q,
                call.max_seqlen_k,
                False,
                True,
            )
            assert lse is not None and link_lse is not None  # noqa: S101, PT018 (the calls ask for them)
            rows, own_lse = call.query_rows, call.query_rows.gather(lse)
            rows.scatter(output, merge_attention_outputs(rows.gather(output), own_lse, link_output, link_lse))
            if call is not self.link_calls[-1]:
                rows.scatter(lse, torch.logaddexp(own_lse, link_lse))
        return output


class StaticVarlenAttention:
    """Causal attention for rows of one size, whose segments may change between calls: a CUDA graph can hold it.

    Args:
        kernel: The kernel, as `select_varlen_kernel` returns it.
        cu_seqlens: Where each segment starts, followed by the end of the last, (num_segments + 1,) int32 on the device.
            The kernel reads them at each call. The last is the number of rows, so that no row is left out; segments may
            be empty.
        max_seqlen: The number of rows.
    """

    def __init__(self, kernel: VarlenKernel, cu_seqlens: Tensor, max_seqlen: int) -> None:
        self.kernel = kernel
        self.cu_seqlens = cu_seqlens
        self.max_seqlen = max_seqlen

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute attention; see `AttentionFunction`.

        Args:
            query: (num_tokens, num_heads, head_dim).
            key: (num_tokens, num_kv_heads, head_dim).
            value: (num_tokens, num_kv_heads, head_dim).

        Returns:
            (num_tokens, num_heads, head_dim).
        """
        ends, longest = self.cu_seqlens, self.max_seqlen
        output, _ = self.kernel(query, key, value, ends, ends, longest, longest, True, False)
        return output


def _group_links(links: Iterable[PrefixLink], max_keys: int) -> list[list[PrefixLink]]:
    """Split links of one level into groups of at most `max_keys` keys, which no link alone exceeds."""
    groups: list[list[PrefixLink]] = []
    num_keys = 0
    for link in links:
        if not groups or num_keys + link.num_keys > max_keys:
            groups.append([])
            num_keys = 0
        groups[-1].append(link)
        num_keys += link.num_keys
    return groups


class _LinkCall:
    """The arguments of one kernel call that serves several links of one level.

    Args:
        links: The links, whose query ranges are disjoint.
        device: The device for index tensors.
    """

    def __init__(self, links: Sequence[PrefixLink], device: torch.device) -> None:
        self.query_rows = _RowRanges([(link.query_start, link.query_stop) for link in links], device)
        self.key_rows = _RowRanges([(link.key_start, link.key_stop) for link in links], device)
        self.cu_seqlens_q = cumulative_seqlens([link.num_queries for link in links], device)
        self.cu_seqlens_k = cumulative_seqlens([link.num_keys for link in links], device)
        self.max_seqlen_q = max(link.num_queries for link in links)
        self.max_seqlen_k = max(link.num_keys for link in links)


class _RowRanges:
    """The rows of several ranges of a packed row, in the order of the ranges.

    They are a view if each range begins where the last one ends, else a copy.

    Args:
        ranges: Start and stop of each range.
        device: The device for the index.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]], device: torch.device) -> None:
        adjacent = all(previous[1] == following[0] for previous, following in pairwise(ranges))
        self.rows = (
            slice(ranges[0][0], ranges[-1][1])
            if adjacent
            else copy_to_device(torch.cat([torch.arange(*row_range) for row_range in ranges]), device)
        )

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of the ranges, as a view if possible."""
        return values[self.rows]

    def scatter(self, values: Tensor, rows: Tensor) -> None:
        """Replace the rows of the ranges in `values` by `rows`, in place."""
        if isinstance(self.rows, slice):
            values[self.rows] = rows
        else:
            values.index_copy_(0, self.rows, rows)

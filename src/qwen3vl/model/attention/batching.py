"""Grouping of adjacent segments of equal length into batches."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import torch
from torch import Tensor

from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink
from qwen3vl.model.transfer import copy_to_device

MAX_REPLICATED_KEYS = 32
"""Maximum number of shared-prefix keys that are copied in front of a segment, instead of a second attention call.

They are copied only if there are no more of them than keys of the segment. For so few keys, copying is faster on a CPU
than a second attention call and the merge (docs/performance.md).
"""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentBatch:
    """Adjacent segments of equal length with equally many replicated keys in front of each.

    Attributes:
        start: Index of the first segment's first token in the packed row.
        num_segments: Number of segments.
        segment_length: Number of tokens of each.
        num_replicated: Number of shared-prefix rows that are copied in front of each.
        row_indices: Token indices in the packed row: for each segment its replicated keys, then its own tokens,
            (num_segments * (num_replicated + segment_length),) int64 on the device; None if nothing is replicated.
    """

    start: int
    num_segments: int
    segment_length: int
    num_replicated: int
    row_indices: Tensor | None

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of the segments, and of what is replicated in front of them, as a batch.

        Args:
            values: Queries, keys or values of the packed row, (num_tokens, num_heads, head_dim).

        Returns:
            (num_segments, num_heads, num_replicated + segment_length, head_dim).
        """
        if self.row_indices is None:
            rows = values[self.start : self.start + self.num_segments * self.segment_length]
        else:
            rows = values.index_select(0, self.row_indices)
        return rows.view(self.num_segments, -1, *values.shape[1:]).transpose(1, 2)

    def drop_replicated(self, values: Tensor) -> Tensor:
        """Return a batch's results as rows, without those of the replicated rows.

        Args:
            values: (num_segments, num_heads, num_replicated + segment_length, ...).

        Returns:
            (num_segments * segment_length, num_heads, ...).
        """
        return values[:, :, self.num_replicated :].transpose(1, 2).flatten(0, 1)


def batch_segments(layout: AttentionLayout, device: torch.device) -> tuple[list[SegmentBatch], list[PrefixLink]]:
    """Group the segments of a layout into batches.

    Args:
        layout: The layout of the packed row.
        device: The device for the batches' index tensors.

    Returns:
        The batches, in the order of the row, and the links that remain for segments without replicated keys.
    """
    starts = [0, *accumulate(layout.segment_lengths)]
    linked_segments = [
        range(bisect_left(starts, link.query_start), bisect_left(starts, link.query_stop)) for link in layout.links
    ]
    prefix_ranges: list[list[tuple[int, int]]] = [[] for _ in layout.segment_lengths]
    for link, segments in zip(layout.links, linked_segments, strict=True):
        for segment in segments:
            prefix_ranges[segment].append((link.key_start, link.key_stop))
    num_replicated = []
    for length, ranges in zip(layout.segment_lengths, prefix_ranges, strict=True):
        num_prefix_keys = sum(stop - start for start, stop in ranges)
        num_replicated.append(num_prefix_keys if num_prefix_keys <= min(length, MAX_REPLICATED_KEYS) else 0)
    batches = []
    for (length, replicated), group in groupby(
        range(len(num_replicated)), key=lambda segment: (layout.segment_lengths[segment], num_replicated[segment])
    ):
        segments_of_batch = list(group)
        row_indices = None
        if replicated:
            row_ranges = [
                row_range
                for segment in segments_of_batch
                for row_range in (*prefix_ranges[segment], (starts[segment], starts[segment + 1]))
            ]
            row_indices = copy_to_device(torch.cat([torch.arange(*row_range) for row_range in row_ranges]), device)
        batches.append(
            SegmentBatch(starts[segments_of_batch[0]], len(segments_of_batch), length, replicated, row_indices)
        )
    remaining_links = []
    for link, segments in zip(layout.links, linked_segments, strict=True):
        for is_replicated, group in groupby(segments, key=lambda segment: bool(num_replicated[segment])):
            if not is_replicated:
                adjacent = list(group)
                remaining_links.append(
                    replace(link, query_start=starts[adjacent[0]], query_stop=starts[adjacent[-1] + 1])
                )
    return batches, remaining_links

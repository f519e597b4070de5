"""Cuts a layout into batches of equally long paths, with a few shared keys repeated in front of each."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import torch
from torch import Tensor

from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink, move

MAX_REPLICATED_KEYS = 32
"""Keys that a path sees of others, at most, that are repeated for it, if they are not more than its own.  A link of so
few takes a CPU longer (docs/performance.md)."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentBatch:
    """`count` paths of one `length`, side by side from the row `start` on, each behind as many `repeated` rows.

    `rows` are all of these, path by path; None where the paths have none but their own.
    """

    start: int
    count: int
    length: int
    repeated: int
    rows: Tensor | None

    def take(self, values: Tensor) -> Tensor:
        """(count, heads, repeated + length, width) of (tokens, heads, width)."""
        own = slice(self.start, self.start + self.count * self.length)
        found = values[own] if self.rows is None else values.index_select(0, self.rows)
        return found.view(self.count, -1, *values.shape[1:]).transpose(1, 2)

    def own(self, values: Tensor) -> Tensor:
        """(count * length, heads, …) of (count, heads, repeated + length, …): what was repeated is dropped."""
        return values[:, :, self.repeated :].transpose(1, 2).flatten(0, 1)


def batch_segments(layout: AttentionLayout, device: torch.device) -> tuple[list[SegmentBatch], list[PrefixLink]]:
    """Runs, and the links of the paths that have no repeated rows."""
    starts = [0, *accumulate(layout.lengths)]
    paths = [range(*(bisect_left(starts, place) for place in (link.start, link.stop))) for link in layout.links]
    seen: list[list[tuple[int, int]]] = [[] for _ in layout.lengths]
    for link, linked in zip(layout.links, paths, strict=True):
        for path in linked:
            seen[path].append((link.first, link.last))
    counts = [sum(last - first for first, last in ranges) for ranges in seen]
    repeated = [
        count if count <= min(length, MAX_REPLICATED_KEYS) else 0
        for count, length in zip(counts, layout.lengths, strict=True)
    ]
    runs = []
    for _, alike in groupby(range(len(repeated)), key=lambda path: (layout.lengths[path], repeated[path])):
        some = list(alike)
        first, rows = some[0], None
        if repeated[first]:
            ranges = [each for path in some for each in (*seen[path], (starts[path], starts[path + 1]))]
            rows = move(torch.cat([torch.arange(*each) for each in ranges]), device)
        runs.append(SegmentBatch(starts[first], len(some), layout.lengths[first], repeated[first], rows))
    links = [
        replace(link, start=starts[some[0]], stop=starts[some[-1] + 1])
        for link, linked in zip(layout.links, paths, strict=True)
        for aside, alike in groupby(linked, key=lambda path: bool(repeated[path]))
        if not aside and (some := list(alike))
    ]
    return runs, links

"""Token sequences to packs: rows of tokens without padding, in which a shared prefix stands once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from qwen3vl.geometry import tokens_of
from qwen3vl.model.attention import Group
from qwen3vl.model.vision import Grid

Ints = NDArray[np.int64]

MIN_SHARED = 8
"""Prefixes shorter than this are not worth an attention call of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class Span:
    """The tokens `start` to `stop` of a sequence show part of a picture or clip, from its token `offset` on.

    `key` names the media and the size at which they are seen: spans of one key show the same pixels.
    """

    start: int
    stop: int
    key: Hashable
    grid: Grid
    offset: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Prompted:
    """One prompt: `ids` (length,), `positions` (3, length) for time, height and width, and its vision spans."""

    ids: Ints
    positions: Ints
    spans: tuple[Span, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """One forward pass.

    `members` are the packed sequences' numbers, `wanted` the place of each one's last token; `media` the
    distinct keys to encode with their grids; `visual` the places of vision tokens in the row and `rows`
    the matching rows of the encoded features.
    """

    members: tuple[int, ...]
    ids: Ints
    positions: Ints
    groups: tuple[Group, ...]
    wanted: Ints
    media: tuple[Hashable, ...]
    grids: tuple[Grid, ...]
    visual: Ints
    rows: Ints

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def places(self, member: int) -> Ints:
        """Where the tokens of a packed sequence lie in the row: (length,)."""
        end = int(self.wanted[self.members.index(member)])
        (group,) = [group for group in self.groups if group.start <= end < group.stop]
        start = group.start + (end - group.start) // group.length * group.length
        spans = [*group.ancestors, (start, group.length)]
        return np.concatenate([np.arange(first, first + length) for first, length in spans])


def plan(sequences: Sequence[Prompted], budget: int) -> Iterator[Pack]:
    """Packs all sequences, at most about `budget` tokens a pack unless one alone is longer.

    The budget may be passed by less than MIN_SHARED tokens a sequence: too short a branch is not shared.

    Sequences that begin alike are packed together, and what they share is computed once: prefixes form a
    tree, whose branches part where the tokens do (never where the strings do: the pre-tokeniser joins
    characters across a seam).
    """
    numbers: dict[Hashable, int] = {}
    codes = [_comparable(sequence, numbers) for sequence in sequences]
    # Fixed-width keys: sequences with a common prefix are neighbours in their order.
    order = sorted(range(len(sequences)), key=lambda index: codes[index].tobytes())
    members: list[int] = []
    shared: list[int] = []
    tokens = 0
    for index in order:
        common = _common(codes[members[-1]], codes[index]) if members else 0
        cost = len(codes[index]) - common
        if members and tokens + cost > budget:
            yield _pack(sequences, members, shared)
            members, shared, tokens, common = [], [], 0, 0
        members.append(index)
        shared.append(common)
        tokens += len(codes[index]) - common
    if members:
        yield _pack(sequences, members, shared)


def _comparable(sequence: Prompted, numbers: dict[Hashable, int]) -> Ints:
    """The ids, with each vision token replaced by what it shows: equal only where the pixels are."""
    codes = sequence.ids.copy()
    for span in sequence.spans:
        first = (numbers.setdefault(span.key, len(numbers)) << 32) + span.offset
        codes[span.start : span.stop] = -1 - np.arange(first, first + span.stop - span.start)
    return codes


def _common(first: Ints, second: Ints) -> int:
    """Tokens that two sequences share from the start, leaving each at least its last; 0 if hardly any."""
    length = min(len(first), len(second)) - 1
    differing = np.flatnonzero(first[:length] != second[:length])
    length = int(differing[0]) if len(differing) else length
    return length if length >= MIN_SHARED else 0


@dataclass(frozen=True, slots=True)
class _Segment:
    """Tokens `start` to `stop` of a sequence, behind the segment numbered `parent` (-1 for none).

    `member` is the sequence itself where the segment is its end, and any that begins so where it is shared.
    """

    member: int
    start: int
    stop: int
    parent: int
    last: bool


def _branch(
    sequences: Sequence[Prompted],
    members: Sequence[int],
    shared: Sequence[int],
    start: int,
    parent: int,
    segments: list[_Segment],
) -> None:
    """Appends the segments of members that share their first `start` tokens.

    `shared[i]` is what member i has in common with member i - 1.
    """
    first = 0
    while first < len(members):
        stop = first + 1
        while stop < len(members) and shared[stop] - start >= MIN_SHARED:
            stop += 1
        if stop - first == 1:
            segments.append(_Segment(members[first], start, len(sequences[members[first]]), parent, last=True))
        else:
            common = min(shared[first + 1 : stop])
            segments.append(_Segment(members[first], start, common, parent, last=False))
            node = len(segments) - 1
            _branch(sequences, members[first:stop], shared[first:stop], common, node, segments)
        first = stop


def _pack(sequences: Sequence[Prompted], members: Sequence[int], shared: Sequence[int]) -> Pack:
    """Lays the tree's segments in one row, those of one parent and length side by side."""
    segments: list[_Segment] = []
    _branch(sequences, members, shared, 0, -1, segments)
    starts = [0] * len(segments)
    groups: list[Group] = []
    pieces: list[_Segment] = []
    place = 0
    laid = sorted(range(len(segments)), key=lambda number: _kind(segments[number]))
    for (parent, length), alike in groupby(laid, key=lambda number: _kind(segments[number])):
        begin = place
        for number in alike:
            starts[number] = place
            pieces.append(segments[number])
            place += length
        groups.append(Group(begin, (place - begin) // length, length, _ancestors(segments, starts, parent)))
    return _row(sequences, pieces, tuple(groups))


def _kind(segment: _Segment) -> tuple[int, int]:
    return segment.parent, segment.stop - segment.start


def _ancestors(segments: Sequence[_Segment], starts: Sequence[int], parent: int) -> tuple[tuple[int, int], ...]:
    """(start, length) of a segment and all above it, the outermost first.  A parent is laid before its children."""
    chain: list[tuple[int, int]] = []
    while parent >= 0:
        segment = segments[parent]
        chain.append((starts[parent], segment.stop - segment.start))
        parent = segment.parent
    return tuple(reversed(chain))


def _row(sequences: Sequence[Prompted], pieces: Sequence[_Segment], groups: tuple[Group, ...]) -> Pack:
    """Joins the pieces and finds the place of every vision token and its feature row."""
    ids, positions, visual, shown = [], [], [], []
    ends: dict[int, int] = {}
    place = 0
    for piece in pieces:
        sequence = sequences[piece.member]
        ids.append(sequence.ids[piece.start : piece.stop])
        positions.append(sequence.positions[:, piece.start : piece.stop])
        for span in sequence.spans:
            first, last = max(span.start, piece.start), min(span.stop, piece.stop)
            if first < last:
                visual.append(np.arange(place + first - piece.start, place + last - piece.start))
                shown.append((span, span.offset + first - span.start, last - first))
        place += piece.stop - piece.start
        if piece.last:
            ends[piece.member] = place - 1
    media: dict[Hashable, tuple[Grid, int]] = {}
    rows, total = [], 0
    for span, offset, count in shown:
        if span.key not in media:
            media[span.key] = (span.grid, total)
            total += tokens_of(span.grid)
        base = media[span.key][1] + offset
        rows.append(np.arange(base, base + count))
    empty = np.zeros(0, dtype=np.int64)
    return Pack(
        members=tuple(ends),
        ids=np.concatenate(ids),
        positions=np.concatenate(positions, axis=1),
        groups=groups,
        wanted=np.array(list(ends.values()), dtype=np.int64),
        media=tuple(media),
        grids=tuple(grid for grid, _ in media.values()),
        visual=np.concatenate(visual) if visual else empty,
        rows=np.concatenate(rows) if rows else empty,
    )

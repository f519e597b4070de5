"""Token sequences to packs: rows of tokens without padding, in which a shared prefix stands once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
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


def comparable(sequence: Prompted, number: Callable[[Hashable], int]) -> Ints:
    """The ids, with each vision token replaced by what it shows: equal only where the pixels are."""
    codes = sequence.ids.copy()
    for span in sequence.spans:
        first = (number(span.key) << 32) + span.offset
        codes[span.start : span.stop] = -1 - np.arange(first, first + span.stop - span.start)
    return codes


def shared_length(sequences: Sequence[Prompted]) -> int:
    """How many tokens all sequences have in common from the start, leaving each at least its last one."""
    if len(sequences) < 2:
        return 0
    numbers: dict[Hashable, int] = {}

    def number(key: Hashable) -> int:
        return numbers.setdefault(key, len(numbers))

    first = comparable(sequences[0], number)
    length = min(map(len, sequences)) - 1
    for sequence in sequences[1:]:
        differing = np.flatnonzero(comparable(sequence, number)[:length] != first[:length])
        length = int(differing[0]) if len(differing) else length
    return length if length >= MIN_SHARED else 0


def plan(sequences: Sequence[Prompted], families: Sequence[Hashable], budget: int) -> Iterator[Pack]:
    """Packs all sequences, at most `budget` tokens a pack unless one alone is longer.

    Sequences of one family (an instruction, a query) are kept together and share their common prefix.
    """
    builder = _Builder(sequences)
    together: dict[Hashable, list[int]] = {}
    for index, name in enumerate(families):
        together.setdefault(name, []).append(index)
    for family in together.values():
        family.sort(key=lambda index: len(sequences[index]))
        shared = shared_length([sequences[index] for index in family])
        for index in family:
            if builder.tokens and builder.tokens + builder.cost(index, family[0], shared) > budget:
                yield builder.pack()
            builder.add(index, family[0], shared)
    if builder.tokens:
        yield builder.pack()


class _Builder:
    """Collects the segments of one pack: prefixes by family, suffixes by prefix and length."""

    def __init__(self, sequences: Sequence[Prompted]) -> None:
        self.sequences = sequences
        self.clear()

    def clear(self) -> None:
        self.tokens = 0
        self.prefixes: dict[int, int] = {}
        self.members: list[tuple[int, int]] = []

    def cost(self, index: int, family: int, shared: int) -> int:
        """Tokens that the sequence would add."""
        return len(self.sequences[index]) - (shared if shared and family in self.prefixes else 0)

    def add(self, index: int, family: int, shared: int) -> None:
        self.tokens += self.cost(index, family, shared)
        if shared:
            self.prefixes[family] = shared
        self.members.append((index, family if shared else -1))

    def pack(self) -> Pack:
        pieces: list[tuple[int, int, int]] = []  # sequence, first token, last token
        groups: list[Group] = []
        starts: dict[int, int] = {}
        place = 0
        for family, shared in self.prefixes.items():
            starts[family] = place
            groups.append(Group(place, 1, shared))
            pieces.append((family, 0, shared))
            place += shared

        def kind(member: tuple[int, int]) -> tuple[int, int]:
            index, family = member
            return family, len(self.sequences[index]) - self.prefixes.get(family, 0)

        members = sorted(self.members, key=kind)
        for (family, length), alike in groupby(members, key=kind):
            shared = self.prefixes.get(family, 0)
            begin = place
            for index, _ in alike:
                pieces.append((index, shared, shared + length))
                place += length
            ancestors = ((starts[family], shared),) if shared else ()
            groups.append(Group(begin, (place - begin) // length, length, ancestors))
        pack = _lay_out(self.sequences, pieces, tuple(groups), tuple(index for index, _ in members))
        self.clear()
        return pack


def _lay_out(
    sequences: Sequence[Prompted],
    pieces: Iterable[tuple[int, int, int]],
    groups: tuple[Group, ...],
    members: tuple[int, ...],
) -> Pack:
    """Joins the pieces into one row and finds the place of every vision token and its feature row."""
    ids, positions, visual, wanted_spans = [], [], [], []
    ends: dict[int, int] = {}
    place = 0
    for index, start, stop in pieces:
        sequence = sequences[index]
        ids.append(sequence.ids[start:stop])
        positions.append(sequence.positions[:, start:stop])
        for span in sequence.spans:
            first, last = max(span.start, start), min(span.stop, stop)
            if first < last:
                visual.append(np.arange(place + first - start, place + last - start))
                wanted_spans.append((span, span.offset + first - span.start, last - first))
        place += stop - start
        ends[index] = place - 1
    media: dict[Hashable, tuple[Grid, int]] = {}
    total = 0
    rows = []
    for span, offset, count in wanted_spans:
        if span.key not in media:
            media[span.key] = (span.grid, total)
            total += tokens_of(span.grid)
        base = media[span.key][1] + offset
        rows.append(np.arange(base, base + count))
    empty = np.zeros(0, dtype=np.int64)
    return Pack(
        members=members,
        ids=np.concatenate(ids),
        positions=np.concatenate(positions, axis=1),
        groups=groups,
        wanted=np.array([ends[index] for index in members], dtype=np.int64),
        media=tuple(media),
        grids=tuple(grid for grid, _ in media.values()),
        visual=np.concatenate(visual) if visual else empty,
        rows=np.concatenate(rows) if rows else empty,
    )

"""Token sequences to packs: rows of tokens without padding, in which a shared prefix stands once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink
from qwen3vl.processing.encoded_prompt import EncodedPrompt, Ints
from qwen3vl.processing.geometry import num_tokens
from qwen3vl.types import Grid


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """One forward pass.

    `members` are the packed sequences' numbers, `output_indices` the place of each one's last token (equal sequences have
    one); `media` the distinct keys to encode with their grids; `vision_token_indices` the places of vision tokens in the row and
    `vision_feature_indices` the matching rows of the encoded features.  `layout` says how the row is cut for attention.
    """

    members: tuple[int, ...]
    ids: Ints
    positions: Ints
    layout: AttentionLayout
    output_indices: Ints
    media: tuple[Hashable, ...]
    grids: tuple[Grid, ...]
    vision_token_indices: Ints
    vision_feature_indices: Ints

    @property
    def tokens(self) -> int:
        return len(self.ids)

    def places(self, member: int) -> Ints:
        """Where the tokens of a packed sequence lie in the row, from its first to its last: (length,)."""
        end = int(self.output_indices[self.members.index(member)])
        ranges = [
            (link.key_start, link.key_stop) for link in self.layout.links if link.query_start <= end < link.query_stop
        ]
        starts = np.cumsum((0, *self.layout.segment_lengths))
        start = int(starts[np.searchsorted(starts, end, side="right") - 1])
        return np.concatenate([np.arange(*each) for each in (*sorted(ranges), (start, end + 1))])


def plan(sequences: Sequence[EncodedPrompt], budget: int) -> Iterator[Pack]:
    """Packs all sequences, at most `budget` tokens a pack unless one alone is longer.

    Sequences that begin alike are packed together, and what they share is computed once: they form a tree, whose
    branches part where the tokens do (never where the strings do: the pre-tokeniser joins characters across a seam).
    """
    numbers: dict[Hashable, int] = {}
    codes = [_comparable(sequence, numbers) for sequence in sequences]
    # Fixed-width keys: sequences with a common prefix are neighbours in their order.
    order = sorted(range(len(sequences)), key=lambda index: codes[index].tobytes())
    members: list[int] = []
    shared: list[int] = []
    tokens = 0
    for index in order:
        common = common_prefix(codes[members[-1]], codes[index]) if members else 0
        cost = len(codes[index]) - common
        if members and tokens + cost > budget:
            yield _pack(sequences, members, shared)
            members, shared, tokens, common = [], [], 0, 0
        members.append(index)
        shared.append(common)
        tokens += len(codes[index]) - common
    if members:
        yield _pack(sequences, members, shared)


def _comparable(sequence: EncodedPrompt, numbers: dict[Hashable, int]) -> Ints:
    """The ids, with each vision token replaced by what it shows: equal only where the pixels are."""
    codes = sequence.ids.copy()
    for span in sequence.spans:
        first = (numbers.setdefault(span.key, len(numbers)) << 32) + span.offset
        codes[span.start : span.stop] = -1 - np.arange(first, first + span.stop - span.start)
    return codes


def common_prefix(first: Ints, second: Ints) -> int:
    """How many values two rows have in common from their start."""
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length


class PrefixTree:
    """Lays the tree of sorted sequences in one row, path by path.

    `shared[i]` is how many tokens sequence i has in common with sequence i - 1.  A path follows, wherever sequences
    part, the most of them; so the row of n sequences has at most log2(n) levels of links, and the branches that leave
    a path at one place lie side by side and share a link.
    """

    def __init__(self, lengths: Sequence[int], shared: Sequence[int]) -> None:
        self.sizes = lengths
        self.shared = shared
        self.tokens = 0
        self.pieces: list[tuple[int, int, int]] = []
        """The paths: tokens `start` to `stop` of a sequence."""
        self.links: list[PrefixLink] = []
        self.ends = [0] * len(lengths)
        """The place of each sequence's last token."""
        self._lay(0, len(lengths), 0, 0)
        self.links.sort(key=lambda link: (link.level, link.query_start))

    def _lay(self, first: int, stop: int, begin: int, level: int) -> None:
        """The path of the sequences `first` to `stop`, whose first `begin` tokens are laid, and what leaves it."""
        start = self.tokens - begin
        leaving: list[tuple[int, list[tuple[int, int]]]] = []
        while True:
            end = min(self.shared[first + 1 : stop], default=self.sizes[first])
            parts = []
            for part in self._parts(first, stop, end):
                if self.sizes[part[0]] == end:
                    self.ends[part[0]] = start + end - 1
                else:
                    parts.append(part)
            if not parts:
                break
            trunk = max(parts, key=lambda part: part[1] - part[0])
            parts.remove(trunk)
            if parts:
                leaving.append((end, parts))
            first, stop = trunk
        self.pieces.append((first, begin, end))
        self.tokens += end - begin
        for at, parts in leaving:
            before = self.tokens
            for part in sorted(parts, key=lambda part: (part[1] - part[0], self.sizes[part[0]])):
                self._lay(*part, at, level + (at > begin))
            if at > begin:
                self.links.append(PrefixLink(level, before, self.tokens, start + begin, start + at))

    def _parts(self, first: int, stop: int, at: int) -> Iterator[tuple[int, int]]:
        """The sequences that go on alike behind their first `at` tokens."""
        for place in range(first + 1, stop):
            if self.shared[place] == at:
                yield first, place
                first = place
        yield first, stop


def _pack(sequences: Sequence[EncodedPrompt], members: Sequence[int], shared: Sequence[int]) -> Pack:
    """Joins the tree's paths to a row and finds the place of every vision token and its feature row."""
    tree = PrefixTree([len(sequences[member]) for member in members], shared)
    ids, positions, visual, shown = [], [], [], []
    place = 0
    for number, start, stop in tree.pieces:
        sequence = sequences[members[number]]
        ids.append(sequence.ids[start:stop])
        positions.append(sequence.positions[:, start:stop])
        for span in sequence.spans:
            first, last = max(span.start, start), min(span.stop, stop)
            if first < last:
                visual.append(np.arange(place + first - start, place + last - start))
                shown.append((span, span.offset + first - span.start, last - first))
        place += stop - start
    media: dict[Hashable, tuple[Grid, int]] = {}
    rows, total = [], 0
    for span, offset, count in shown:
        if span.key not in media:
            media[span.key] = (span.grid, total)
            total += num_tokens(span.grid)
        base = media[span.key][1] + offset
        rows.append(np.arange(base, base + count))
    empty = np.zeros(0, dtype=np.int64)
    return Pack(
        members=tuple(members),
        ids=np.concatenate(ids),
        positions=np.concatenate(positions, axis=1),
        layout=AttentionLayout(tuple(stop - start for _, start, stop in tree.pieces), tuple(tree.links)),
        output_indices=np.array(tree.ends, dtype=np.int64),
        media=tuple(media),
        grids=tuple(grid for grid, _ in media.values()),
        vision_token_indices=np.concatenate(visual) if visual else empty,
        vision_feature_indices=np.concatenate(rows) if rows else empty,
    )

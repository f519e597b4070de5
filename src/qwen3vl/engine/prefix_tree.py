"""Layout of sequences with common prefixes in one row of tokens, in which each prefix occurs once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from qwen3vl.model.attention.layout import PrefixLink
from qwen3vl.processing.encoded_prompt import EncodedPrompt, Ints


class Segment(NamedTuple):
    """Consecutive tokens of a sequence that are also consecutive in the row.

    Attributes:
        sequence: Index of the sequence.
        start: Index of the first token in the sequence.
        stop: Index after the last token in the sequence.
    """

    sequence: int
    start: int
    stop: int


class PrefixTree:
    """Arranges the prefix tree (a radix tree) of sorted sequences as one row of segments.

    A segment follows the tree from a branch point on, and wherever sequences diverge it continues with the branch of
    the most sequences. So for n sequences links are nested at most log2(n) levels deep. Branches that leave a segment
    at one point follow it one after another, and share a link to the prefix that they attend to.

    Args:
        lengths: Number of tokens of each sequence. The sequences are sorted by their tokens.
        prefix_lengths: How many tokens sequence i has in common with sequence i - 1; the first value is not used.

    Attributes:
        num_tokens: Number of tokens in the row.
        segments: The row's segments, in order.
        links: Which tokens attend to which prefix, sorted by level and first query.
        last_token_indices: Index in the row of each sequence's last token.

    Example:
        The sequences `a b c`, `a b d e` and `a b d f` have lengths (3, 4, 4) and prefix lengths (0, 2, 3). The row is
        `a b d e c f`: the segment `a b d e`, the segment `c` that attends to the prefix `a b`, and the segment `f` that
        attends to the prefix `a b d`.
    """

    def __init__(self, lengths: Sequence[int], prefix_lengths: Sequence[int]) -> None:
        self.num_tokens = 0
        self.segments: list[Segment] = []
        self.links: list[PrefixLink] = []
        self.last_token_indices = [0] * len(lengths)
        self._lengths = lengths
        self._prefix_lengths = prefix_lengths
        self._add_segment(0, len(lengths), 0, 0)
        self.links.sort(key=lambda link: (link.level, link.query_start))

    def _add_segment(self, first: int, stop: int, depth: int, level: int) -> None:
        """Append a segment and, recursively, all branches that leave it.

        Args:
            first: Index of the first sequence of this subtree.
            stop: Index after its last sequence.
            depth: Number of tokens of these sequences that are in the row already.
            level: Number of links whose query rows contain this segment.
        """
        offset = self.num_tokens - depth  # from an index in these sequences to an index in the row
        branch_points: list[tuple[int, list[tuple[int, int]]]] = []
        while True:
            end = min(self._prefix_lengths[first + 1 : stop], default=self._lengths[first])
            branches = []
            for branch in self._branches(first, stop, end):
                if self._lengths[branch[0]] == end:
                    self.last_token_indices[branch[0]] = offset + end - 1
                else:
                    branches.append(branch)
            if not branches:
                break
            largest = max(branches, key=lambda branch: branch[1] - branch[0])
            branches.remove(largest)
            if branches:
                branch_points.append((end, branches))
            first, stop = largest
        self.segments.append(Segment(first, depth, end))
        self.num_tokens += end - depth
        for branch_depth, branches in branch_points:
            start = self.num_tokens
            for branch in sorted(branches, key=lambda branch: (branch[1] - branch[0], self._lengths[branch[0]])):
                self._add_segment(*branch, branch_depth, level + (branch_depth > depth))
            if branch_depth > depth:
                self.links.append(PrefixLink(level, start, self.num_tokens, offset + depth, offset + branch_depth))

    def _branches(self, first: int, stop: int, depth: int) -> Iterator[tuple[int, int]]:
        """Split sequences `first` to `stop`, which share `depth` tokens, where the next token differs.

        Args:
            first: Index of the first sequence.
            stop: Index after the last sequence.
            depth: Number of tokens that all of them share.

        Yields:
            (first, stop) of each group of sequences whose next token is the same.
        """
        for index in range(first + 1, stop):
            if self._prefix_lengths[index] == depth:
                yield first, index
                first = index
        yield first, stop


def common_prefix_length(first: Ints, second: Ints) -> int:
    """Count the values that two arrays have in common from their start.

    Args:
        first: (n,) int64.
        second: (m,) int64.

    Returns:
        The length of the common prefix.
    """
    length = min(len(first), len(second))
    differing = np.flatnonzero(first[:length] != second[:length])
    return int(differing[0]) if len(differing) else length


def shared_prefix_length(first: EncodedPrompt, second: EncodedPrompt) -> int:
    """Count the tokens that two prompts have in common from their start; vision tokens only if they show the same.

    Args:
        first: A prompt.
        second: Another one.

    Returns:
        The length of the common prefix.
    """
    length = common_prefix_length(first.ids, second.ids)
    for span, other in zip(first.spans, second.spans, strict=False):
        if span.start >= length:
            break
        if (span.key, span.offset) != (other.key, other.offset):
            return min(length, span.start, other.start)
    return length

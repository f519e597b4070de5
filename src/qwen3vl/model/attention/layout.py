"""The layout of a packed row: its segments, and which segments share a prefix."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PrefixLink:
    """Lets the queries of whole segments attend to all keys of an earlier range of the row.

    All fields but `level` are token indices in the row; ranges exclude their stop.

    Attributes:
        level: Number of links between these segments and the root of the prefix tree. The query ranges of links of one
            level are disjoint, so one kernel call can serve them.
        query_start: First query row: the first token of a segment.
        query_stop: End of the query rows: the end of a segment.
        key_start: First key row.
        key_stop: End of the key rows.
    """

    level: int
    query_start: int
    query_stop: int
    key_start: int
    key_stop: int

    @property
    def num_queries(self) -> int:
        """Number of query rows."""
        return self.query_stop - self.query_start

    @property
    def num_keys(self) -> int:
        """Number of key rows."""
        return self.key_stop - self.key_start


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """How a packed row is cut for attention.

    Attributes:
        segment_lengths: Number of tokens of each segment, in the order in which they stand in the row. Segments attend
            to themselves.
        links: What segments attend to besides themselves, sorted by level.
    """

    segment_lengths: tuple[int, ...]
    links: tuple[PrefixLink, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Number of tokens of the row."""
        return sum(self.segment_lengths)

    def num_attended_pairs(self, *, causal: bool) -> int:
        """Return the number of pairs of a query and a key that it attends to.

        Args:
            causal: Whether a token attends only to itself and to earlier tokens of its segment.

        Returns:
            Number of pairs, within segments and by links.
        """
        within_segments = sum(
            length * (length + 1) // 2 if causal else length * length for length in self.segment_lengths
        )
        return within_segments + sum(link.num_queries * link.num_keys for link in self.links)

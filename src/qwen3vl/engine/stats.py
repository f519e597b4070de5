"""What an engine did: how much was asked of it, how much it computed, and what it waited for."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since an engine was made; the difference of two is what happened between them.

    items: prompts that were run.  packs: forward passes.
    tokens_requested: of all prompts; tokens_computed: of the rows that went through the language model.  There is no
    padding: they are less by what prompts share.
    media_requested: pictures and clips in all prompts; media_encoded: that went through the vision tower;
    media_cached: whose features were there from an earlier pack or run_state, once a pack.
    seconds_waiting: for headers, pixels and prompts while nothing ran; seconds_running: in forward passes.
    flops: floating point operations of the forward passes, see `model.flops`.
    """

    items: int = 0
    packs: int = 0
    tokens_requested: int = 0
    tokens_computed: int = 0
    media_requested: int = 0
    media_encoded: int = 0
    media_cached: int = 0
    seconds_waiting: float = 0.0
    seconds_running: float = 0.0
    flops: int = 0

    @property
    def tokens_shared(self) -> int:
        """Tokens that were not computed because another prompt of the pack had them."""
        return self.tokens_requested - self.tokens_computed

    def __add__(self, other: Stats) -> Stats:
        return Stats(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: Stats) -> Stats:
        return Stats(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))


class StatsAccumulator:
    """A sum of `Stats` that many threads add to."""

    def __init__(self) -> None:
        self.total = Stats()
        self._lock = threading.Lock()

    def add(self, **counts: float) -> None:
        with self._lock:
            self.total = self.total + Stats(**counts)  # type: ignore[arg-type]

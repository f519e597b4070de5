"""Counters of an engine's work: what was requested, what was computed, and how long devices waited for input."""

from __future__ import annotations

from dataclasses import dataclass, fields

from qwen3vl._deprecation import deprecated_alias
from qwen3vl.concurrency.fork_safety import ForkSafeLock


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since an engine was created. The difference of two snapshots is what happened between them.

    Passes that failed are not counted. Seconds are summed over devices and calls.

    Attributes:
        calls: Number of calls, such as `Embedder.embed`, that have begun.
        items: Number of prompts that were run.
        packs: Number of forward passes.
        call_packs: Number of forward passes, each counted once for every call whose prompts were in it. Divided by
            `packs`, it tells how many callers share a pass; divided by `calls`, how many passes a call takes.
        tokens_requested: Number of tokens of all prompts.
        tokens_computed: Number of tokens that went through the language model. Nothing is padded; the number is
            lower than `tokens_requested` by the prefixes that prompts share.
        tokens_shared_across_calls: Number of tokens that were not computed because a prompt of another call has the
            same prefix; part of `tokens_shared`.
        media_requested: Number of images and videos in all prompts.
        media_encoded: Number of images and videos that went through the vision tower.
        media_cached: Number of images and videos, counted once per forward pass, whose features were in the cache.
        seconds_queued: Seconds from the time when a prompt was ready, with its media decoded, until its pass began;
            summed over prompts.
        seconds_waiting: Seconds in which a device was idle while headers were read, media decoded and prompts
            tokenized.
        seconds_running: Seconds of forward passes.
        flops: Floating point operations of the forward passes, as `qwen3vl.model.flops` counts them.

    Example:
        ```python
        before = embedder.engine.stats
        embedder.embed(inputs)
        print(embedder.engine.stats - before)
        ```
    """

    calls: int = 0
    items: int = 0
    packs: int = 0
    call_packs: int = 0
    tokens_requested: int = 0
    tokens_computed: int = 0
    tokens_shared_across_calls: int = 0
    media_requested: int = 0
    media_encoded: int = 0
    media_cached: int = 0
    seconds_queued: float = 0.0
    seconds_waiting: float = 0.0
    seconds_running: float = 0.0
    flops: int = 0

    @property
    def tokens_shared(self) -> int:
        """Number of tokens that were not computed because another prompt of the pack has the same prefix."""
        return self.tokens_requested - self.tokens_computed

    def __add__(self, other: Stats) -> Stats:
        return Stats(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def __sub__(self, other: Stats) -> Stats:
        return Stats(*(getattr(self, field.name) - getattr(other, field.name) for field in fields(self)))

    tokens_asked = deprecated_alias("Stats", "tokens_asked", "tokens_requested")
    pictures_asked = deprecated_alias("Stats", "pictures_asked", "media_requested")
    pictures_encoded = deprecated_alias("Stats", "pictures_encoded", "media_encoded")
    pictures_kept = deprecated_alias("Stats", "pictures_kept", "media_cached")


class StatsAccumulator:
    """A running total of `Stats`. Thread-safe.

    Attributes:
        total: The sum of all that was added.
    """

    def __init__(self) -> None:
        self.total = Stats()
        self._lock = ForkSafeLock()

    def add(self, stats: Stats) -> None:
        """Add to the total.

        Args:
            stats: The counts of a forward pass.
        """
        with self._lock:
            self.total = self.total + stats

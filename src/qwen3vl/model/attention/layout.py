"""How a row of packed tokens is cut for attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PrefixLink:
    """The rows `start` to `stop`, whole paths, attend to all of the rows `first` to `last`, which stand before them.

    `level` counts the links of a row: those of one level have no row in common.
    """

    level: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class AttentionLayout:
    """The lengths of a row's paths, side by side from its first token to its last, and their links."""

    lengths: tuple[int, ...]
    links: tuple[PrefixLink, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def num_attended_pairs(self, *, causal: bool) -> int:
        """Pairs of a query and a key that it sees."""
        inside = sum(length * (length + 1) // 2 if causal else length * length for length in self.lengths)
        return inside + sum((link.stop - link.start) * (link.last - link.first) for link in self.links)


def move(values: Tensor, device: torch.device) -> Tensor:
    """To the device; through pinned memory where that spares the host a wait."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)

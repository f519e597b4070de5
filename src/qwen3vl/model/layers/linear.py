"""Linear layers, each with what follows it, over rows or blocks of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor, nn
from torch.nn.functional import gelu, linear


class LinearBase(nn.Module):
    """A linear layer over rows, (rows, in) to (rows, out), whatever its weights are kept as."""

    bias: Tensor | None

    def matrix(self) -> Tensor:
        """The weights, (out, in), in the dtype of the rows."""
        raise NotImplementedError

    def forward(self, rows: Tensor) -> Tensor:
        return linear(rows, self.matrix(), self.bias)

    def gelu(self, rows: Tensor, approximate: str = "none") -> Tensor:
        """The product through GELU; `approximate` as torch has it: "none" or "tanh"."""
        return gelu(self(rows), approximate=approximate)

    def silu_mul(self, rows: Tensor, other: LinearBase, gate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The product through SiLU, times another layer's of the same rows: `gate` does that to products."""
        return gate(self(rows), other(rows))

    def plus(self, rows: Tensor, other: Tensor) -> Tensor:
        """The product added to `other`, a residual."""
        return other + self(rows)  # type: ignore[no-any-return]


class Linear(LinearBase):
    """With weights as a checkpoint has them, and their names."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True) -> None:
        super().__init__()
        plain = nn.Linear(inputs, outputs, bias=bias)
        self.weight = plain.weight
        self.bias = plain.bias

    def matrix(self) -> Tensor:
        return self.weight


Rows = TypeVar("Rows", Tensor, tuple[Tensor, ...])


def _room(blocks: Iterable[Tensor], rows: int) -> list[Tensor]:
    return [block.new_empty((rows, *block.shape[1:])) for block in blocks]


class RowChunked(nn.Module):
    """What does its work on each row for itself, and so may do it block by block."""

    most: int | None = None
    """Rows of a block; None takes all rows at once."""
    step: int = 1
    """Every block but the last has a multiple of so many rows, as `most` is."""

    def map_row_blocks(self, work: Callable[..., Rows], *rows: Tensor) -> Rows:
        """`work` on tensors of equally many rows: a tensor, or some, of as many."""
        sizes = list(self._sizes(len(rows[0])))
        if len(sizes) < 2:
            return work(*rows)
        wholes: list[Tensor] = []
        parts: tuple[Tensor, ...]
        start = 0
        for size in sizes:
            found = work(*(each[start : start + size] for each in rows))
            parts = (found,) if isinstance(found, Tensor) else found
            wholes = wholes or _room(parts, len(rows[0]))
            # Copied while the block is in the processor's cache.
            for whole, block in zip(wholes, parts, strict=True):
                whole[start : start + size] = block
            start += size
        return wholes[0] if isinstance(found, Tensor) else tuple(wholes)

    def _sizes(self, left: int) -> Iterator[int]:
        most = self.most or left
        while left:
            size = min(left - left % self.step or left, most)
            yield size
            left -= size

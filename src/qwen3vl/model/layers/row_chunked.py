"""Applying row-wise functions in blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from torch import Tensor, nn

RowsT = TypeVar("RowsT", Tensor, tuple[Tensor, ...])


class RowChunked(nn.Module):
    """Base of modules that process every row independently, and so may process blocks of rows in turn.

    Attributes:
        block_rows: Maximum number of rows in a block, a multiple of `block_multiple`. None processes all rows at once.
        block_multiple: The size of every block but the last is a multiple of this.
    """

    block_rows: int | None = None
    block_multiple: int = 1

    def map_row_blocks(self, function: Callable[..., RowsT], *inputs: Tensor) -> RowsT:
        """Apply a row-wise function in blocks.

        Args:
            function: Takes as many tensors as there are inputs, and returns one tensor or a tuple of tensors. The
                first dimension of all of them is the rows.
            *inputs: Tensors with the same number of rows.

        Returns:
            The same as `function(*inputs)`.
        """
        num_rows = len(inputs[0])
        block_sizes = list(self._block_sizes(num_rows))
        if len(block_sizes) < 2:
            return function(*inputs)
        outputs: list[Tensor] = []
        start = 0
        for block_size in block_sizes:
            result = function(*(tensor[start : start + block_size] for tensor in inputs))
            blocks: tuple[Tensor, ...] = (result,) if isinstance(result, Tensor) else result
            outputs = outputs or _allocate_outputs(blocks, num_rows)
            # Copied now, while the block is still in the processor's cache.
            for output, block in zip(outputs, blocks, strict=True):
                output[start : start + block_size] = block
            start += block_size
        return outputs[0] if isinstance(result, Tensor) else tuple(outputs)

    def _block_sizes(self, num_rows: int) -> Iterator[int]:
        max_rows = self.block_rows or num_rows
        remaining = num_rows
        while remaining:
            block_size = min(remaining - remaining % self.block_multiple or remaining, max_rows)
            yield block_size
            remaining -= block_size


def _allocate_outputs(blocks: Sequence[Tensor], num_rows: int) -> list[Tensor]:
    return [block.new_empty((num_rows, *block.shape[1:])) for block in blocks]

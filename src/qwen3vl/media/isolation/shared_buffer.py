"""Memory that this process and a decoder process share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64
"""Bytes; data begin at multiples of it."""

Data: TypeAlias = bytes | NDArray[Any]
Location: TypeAlias = tuple[int, int]
"""Offset and size of data in the buffer, in bytes."""


class SharedBuffer:
    """An unnamed file, in memory where the system allows it. It disappears once both processes have closed it.

    The processes take turns: one writes and sends the locations, the other reads. They do not map the file, so that
    neither depends on its size while it works.

    Args:
        file_descriptor: The file that the other process has created; None creates one.

    Attributes:
        file_descriptor: The file, to be inherited by the other process.
    """

    def __init__(self, file_descriptor: int | None = None) -> None:
        self.file_descriptor = _create_file() if file_descriptor is None else file_descriptor

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return os.fstat(self.file_descriptor).st_size

    def write(self, values: Sequence[Data]) -> list[Location]:
        """Write data from the beginning of the buffer, which grows as needed.

        Args:
            values: Bytes and contiguous arrays.

        Returns:
            Where each of them is.

        Raises:
            OSError: There is not enough memory, or space on the disk.
        """
        locations, offset = [], 0
        for value in values:
            view = np.frombuffer(value, np.uint8)
            locations.append((offset, view.nbytes))
            written = 0
            while written < view.nbytes:
                written += os.pwrite(self.file_descriptor, view[written:].data, offset + written)
            offset += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
        return locations

    def read(self, location: Location, dtype: str = "uint8") -> NDArray[Any]:
        """Read an array.

        Args:
            location: What `write` returned in the other process.
            dtype: Type of its elements.

        Returns:
            A new array, flat.

        Raises:
            ValueError: The buffer is smaller than that, or the size is no multiple of an element's.
        """
        offset, size = location
        if offset < 0 or size < 0 or (size and offset + size > self.size):
            raise ValueError(f"the buffer of {self.size} bytes has no {size} bytes at {offset}")
        array = np.empty(size, np.uint8)
        num_read = 0
        while num_read < size:
            num_bytes = os.preadv(self.file_descriptor, [array[num_read:].data], offset + num_read)
            if not num_bytes:
                raise ValueError("the buffer was cut off")
            num_read += num_bytes
        return array.view(dtype)

    def close(self) -> None:
        """Close the file."""
        os.close(self.file_descriptor)


def _create_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("qwen3vl-decoder")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

"""Memory that this process and a decoder process share."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if os.name == "posix":
    import fcntl

_ALIGNMENT = 64
"""Bytes; arrays begin at multiples of it."""

Data: TypeAlias = bytes | NDArray[Any]
Location: TypeAlias = tuple[int, int]
"""Offset and size of data in the buffer, in bytes."""


class SharedBuffer:
    """A file without a name that two processes map into their memory. It ends with the last process that has it open.

    The processes take turns: one writes and sends the locations, the other copies the data out.

    Args:
        file_descriptor: The file that the other process has created; None creates one.

    Attributes:
        file_descriptor: The file, to be inherited by the other process.
    """

    def __init__(self, file_descriptor: int | None = None) -> None:
        self.file_descriptor = _create_file() if file_descriptor is None else file_descriptor
        self._map: mmap.mmap | None = None

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return os.fstat(self.file_descriptor).st_size

    def write(self, arrays: Sequence[Data]) -> list[Location]:
        """Write data from the beginning of the buffer, which grows as needed.

        Args:
            arrays: Contiguous data.

        Returns:
            Where each of them is.

        Raises:
            MemoryError: There is not enough memory.
        """
        views = [np.frombuffer(array, np.uint8).data for array in arrays]
        locations, end = [], 0
        for view in views:
            locations.append((end, view.nbytes))
            end += -(-view.nbytes // _ALIGNMENT) * _ALIGNMENT
        if end > self.size:
            os.ftruncate(self.file_descriptor, end)
        for (offset, size), view in zip(locations, views, strict=True):
            if size:
                self._mapped(end)[offset : offset + size] = view
        return locations

    def read(self, location: Location) -> bytes:
        """Copy bytes out of the buffer.

        Args:
            location: What `write` returned in the other process.

        Returns:
            The bytes.

        Raises:
            ValueError: The buffer does not reach so far.
        """
        offset, size = self._check(location)
        return self._mapped(offset + size)[offset : offset + size] if size else b""

    def read_array(self, location: Location, dtype: str) -> NDArray[Any]:
        """Copy an array out of the buffer.

        Args:
            location: As for `read`.
            dtype: Type of its elements, such as `"uint8"`.

        Returns:
            The array, flat.

        Raises:
            ValueError: The buffer does not reach so far.
        """
        offset, size = self._check(location)
        if not size:
            return np.empty(0, dtype)
        num_elements = size // np.dtype(dtype).itemsize
        return np.frombuffer(self._mapped(offset + size), dtype, num_elements, offset).copy()

    def _check(self, location: Location) -> Location:
        offset, size = location
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ValueError(f"the buffer of {self.size} bytes has no {size} bytes at {offset}")
        return location

    def close(self) -> None:
        """Release the memory, as far as this process is concerned."""
        if self._map is not None:
            self._map.close()
            self._map = None
        os.close(self.file_descriptor)

    def _mapped(self, size: int) -> mmap.mmap:
        """Return a map of the file with at least `size` bytes."""
        if self._map is None or len(self._map) < size:
            if self._map is not None:
                self._map.close()
            try:
                self._map = mmap.mmap(self.file_descriptor, self.size)
            except OSError as error:
                self._map = None
                raise MemoryError("there is no memory for the result") from error
        return self._map


def _create_file() -> int:
    if hasattr(os, "memfd_create"):
        file_descriptor = os.memfd_create("qwen3vl-decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        # A process that is taken over by a hostile file cannot crash this one by cutting the file off under its map.
        fcntl.fcntl(file_descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        return file_descriptor
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())

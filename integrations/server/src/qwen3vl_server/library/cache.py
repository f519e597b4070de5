"""A cache of bytes with a limited size."""

from __future__ import annotations

from collections import OrderedDict


class ByteCache:
    """Encoded files by key; the ones that were used least recently leave first. It is not thread-safe.

    Args:
        max_bytes: Maximum size of all of them.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, key: str) -> bytes | None:
        """Return what is cached.

        Args:
            key: The key.

        Returns:
            The bytes; None if there are none.
        """
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: str, data: bytes) -> None:
        """Cache bytes.

        Args:
            key: The key.
            data: The bytes.
        """
        self._size += len(data) - len(self._entries.pop(key, b""))
        self._entries[key] = data
        while self._size > self._max_bytes:
            self._size -= len(self._entries.popitem(last=False)[1])

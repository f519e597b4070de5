"""A cache of bytes with a limited size: of contents that clients have sent, and of thumbnails."""

from __future__ import annotations

from collections import OrderedDict


class ByteCache:
    """Bytes by key; those that were used least recently are dropped first. It is not thread-safe.

    Args:
        max_bytes: Maximum size of all of them.

    Attributes:
        used_bytes: Their present size.
    """

    def __init__(self, max_bytes: int) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, bytes] = OrderedDict()

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
        """Cache bytes in place of former ones, unless they alone exceed the limit.

        Args:
            key: The key.
            data: The bytes.
        """
        self.used_bytes -= len(self._entries.pop(key, b""))
        if len(data) > self._max_bytes:
            return
        self._entries[key] = data
        self.used_bytes += len(data)
        while self.used_bytes > self._max_bytes:
            self.used_bytes -= len(self._entries.popitem(last=False)[1])

"""Contents of media that clients have sent, kept so that they need not send them again."""

from __future__ import annotations

from collections import OrderedDict


class ContentCache:
    """Contents by digest; those that were not used for longest are dropped. It belongs to one event loop.

    Args:
        max_bytes: How many bytes it holds at most.

    Attributes:
        used_bytes: How many it holds at present.
    """

    def __init__(self, max_bytes: int) -> None:
        self.used_bytes = 0
        self._max_bytes = max_bytes
        self._contents: OrderedDict[str, bytes] = OrderedDict()

    def get(self, digest: str) -> bytes | None:
        """Return a content; None if it is not here.

        Args:
            digest: Its digest.

        Returns:
            The content.
        """
        content = self._contents.get(digest)
        if content is not None:
            self._contents.move_to_end(digest)
        return content

    def add(self, digest: str, content: bytes) -> None:
        """Keep a content, unless it alone exceeds the limit.

        Args:
            digest: Its digest, as this process has computed it.
            content: The content.
        """
        if digest in self._contents or len(content) > self._max_bytes:
            return
        self._contents[digest] = content
        self.used_bytes += len(content)
        while self.used_bytes > self._max_bytes:
            _, dropped = self._contents.popitem(last=False)
            self.used_bytes -= len(dropped)

"""Signed URLs of media: `<img>` and `<video>` cannot send an API key in a header."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from urllib.parse import parse_qs, urlencode

_PERIOD_S = 3600
"""Signatures end with the next hour but one, so that a URL stays the same, and cached, for an hour."""


class MediaSigner:
    """Signs the ids of points whose media a client may load for one to two hours, and checks such signatures.

    The secret is derived from the API keys: all processes with equal keys accept each other's URLs.

    Args:
        keys: The server's API keys. Without any, nothing is signed, and everything passes.
        now: Returns the time in seconds since 1970.
    """

    def __init__(self, keys: Sequence[str], now: Callable[[], float] = time.time) -> None:
        joined = "\0".join(sorted(keys)).encode()
        self._secret = sha256(b"qwen3vl media\0" + joined).digest() if keys else None
        self._now = now

    def query(self, point_id: str) -> str:
        """Return what is appended to the URL of a point's media.

        Args:
            point_id: The point's id.

        Returns:
            A query string with its question mark; empty without keys.
        """
        if self._secret is None:
            return ""
        expires = (int(self._now()) // _PERIOD_S + 2) * _PERIOD_S
        return "?" + urlencode({"expires": expires, "signature": self._sign(point_id, str(expires))})

    def accepts(self, point_id: str, query: str) -> bool:
        """Return whether a request for a point's media has a valid signature.

        Args:
            point_id: The point's id, as the path has it.
            query: The request's query string, without its question mark.

        Returns:
            True without keys.
        """
        if self._secret is None:
            return True
        try:
            fields = parse_qs(query, max_num_fields=10)
        except ValueError:  # more fields
            return False
        expires, signature = (fields.get(name, [""])[0] for name in ("expires", "signature"))
        if not expires.isdecimal() or not expires.isascii() or len(expires) > 12:
            return False
        valid = self._sign(point_id, expires)
        return hmac.compare_digest(valid.encode(), signature.encode()) and int(expires) > self._now()

    def _sign(self, point_id: str, expires: str) -> str:
        assert self._secret is not None  # noqa: S101 (callers have checked it)
        return hmac.new(self._secret, f"{point_id}\0{expires}".encode(), sha256).hexdigest()

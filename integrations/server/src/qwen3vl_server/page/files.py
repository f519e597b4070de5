"""Files of pages, and the answers that have them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from fastapi import Request, Response

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
"""By ending of a file's name."""
BASE_POLICY = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The part of the Content-Security-Policy that all pages have; each adds the sources of its files."""
_HEADERS = {
    "cache-control": "no-cache",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class PageFile:
    """A file of a page.

    Attributes:
        content: Its content.
        media_type: Its type, for the header.
        tag: Its entity tag.
    """

    content: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, content: bytes, ending: str) -> Self:
        """Make a file.

        Args:
            content: Its content.
            ending: Ending of its name, a key of `MEDIA_TYPES`.

        Returns:
            The file.
        """
        return cls(content, MEDIA_TYPES[ending], f'"{sha256(content).hexdigest()[:32]}"')


def respond_with_file(file: PageFile, request: Request, policy: str) -> Response:
    """Return the response with a file.

    Args:
        file: The file.
        request: The request, which may have the tag of the file that its client has already.
        policy: The Content-Security-Policy.

    Returns:
        The file, or status 304.
    """
    headers = {**_HEADERS, "content-security-policy": policy, "etag": file.tag}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)

"""The files of the pages, and the answers that have them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from fastapi import Request, Response

from qwen3vl_server.errors import RequestError

_FOLDER = Path(__file__).parent / "static"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def respond_with_file(name: str, request: Request) -> Response:
    """Return the response with a file.

    Args:
        name: The file's name; no request's path reaches the file system.
        request: The request, which may have the tag of the file that its client has already.

    Returns:
        The file, or status 304.

    Raises:
        RequestError: There is no such file: status 404.
    """
    if name not in _FILES:
        raise RequestError(404, f"the page has no file {name!r}")
    content, media_type, tag = _FILES[name]
    headers = {**_HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _read_files() -> dict[str, tuple[bytes, str, str]]:
    """Return content, type and entity tag of each file, by name."""
    files = {}
    for path in _FOLDER.iterdir():
        if path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            files[path.name] = (content, _MEDIA_TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
    return files


_FILES = _read_files()

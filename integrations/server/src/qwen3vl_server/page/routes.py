"""`/` and the files of the search page."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from qwen3vl_server.asgi import local_path
from qwen3vl_server.errors import RequestError

router = APIRouter()

PAGE_PREFIX = "/page/"
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


def is_page(scope: Scope) -> bool:
    """Return whether a request asks for the page or one of its files, which are public.

    Args:
        scope: The request's scope.

    Returns:
        Whether its path is one of theirs.
    """
    path = local_path(scope)
    return path == "/" or path.startswith(PAGE_PREFIX)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """Return the page."""
    return _respond("index.html", request)


@router.get(PAGE_PREFIX + "{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return _respond(name, request)


def _respond(name: str, request: Request) -> Response:
    if name not in _FILES:
        raise RequestError(404, f"the page has no file {name!r}")
    content, media_type, tag = _FILES[name]
    headers = {**_HEADERS, "etag": tag}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers, media_type=media_type)


def _read_files() -> dict[str, tuple[bytes, str, str]]:
    """Return content, type and entity tag of each file, by name; no request's path reaches the file system."""
    files = {}
    for path in _FOLDER.iterdir():
        if path.suffix in _MEDIA_TYPES:
            content = path.read_bytes()
            files[path.name] = (content, _MEDIA_TYPES[path.suffix], f'"{sha256(content).hexdigest()[:32]}"')
    return files


_FILES = _read_files()

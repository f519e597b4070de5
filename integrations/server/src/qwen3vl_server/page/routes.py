"""`/` and the files of the search page."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from qwen3vl_server.asgi import local_path
from qwen3vl_server.errors import RequestError
from qwen3vl_server.page.files import BASE_POLICY, MEDIA_TYPES, PageFile, respond_with_file

router = APIRouter()

PAGE_PREFIX = "/page/"
_SOURCES = "script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'"
_POLICY = f"{BASE_POLICY}; {_SOURCES}; require-trusted-types-for 'script'; trusted-types 'none'"
_FILES = {
    path.name: PageFile.of(path.read_bytes(), path.suffix)
    for path in (Path(__file__).parent / "static").iterdir()
    if path.suffix in MEDIA_TYPES
}
"""By name; no request's path reaches the file system."""


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
    return respond_with_file(_FILES["index.html"], request, _POLICY)


@router.get(PAGE_PREFIX + "{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    if name not in _FILES:
        raise RequestError(404, f"the page has no file {name!r}")
    return respond_with_file(_FILES[name], request, _POLICY)

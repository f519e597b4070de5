"""`/` and the files of the search page."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from qwen3vl_server.asgi import local_path
from qwen3vl_server.page.files import respond_with_file

router = APIRouter()

PAGE_PREFIX = "/page/"


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
    return respond_with_file("index.html", request)


@router.get(PAGE_PREFIX + "{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    return respond_with_file(name, request)

"""`/docs`: the documentation of the interface, made in the browser from `/openapi.json`.

Swagger UI is not used: it would be a megabyte of others' scripts in a page that may know an API key, which needs a
weaker Content-Security-Policy than that of our pages.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from starlette.types import Scope

from qwen3vl_server.asgi import local_path
from qwen3vl_server.errors import RequestError
from qwen3vl_server.page.files import respond_with_file

router = APIRouter()

DOCS_PATH = "/docs"
_FILES = frozenset({"base.css", "docs.css", "docs.js", "dom.js", "icon.svg", "schemas.js", "trial.js"})


def is_docs(scope: Scope) -> bool:
    """Return whether a request asks for the documentation or one of its files, which are public.

    Args:
        scope: The request's scope.

    Returns:
        Whether its path is one of theirs.
    """
    path = local_path(scope)
    return path == DOCS_PATH or path.startswith(f"{DOCS_PATH}/")


@router.get(DOCS_PATH, include_in_schema=False)
async def docs(request: Request) -> Response:
    """Return the page."""
    return respond_with_file("docs.html", request)


@router.get(DOCS_PATH + "/{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    if name not in _FILES:
        raise RequestError(404, f"the documentation has no file {name!r}")
    return respond_with_file(name, request)

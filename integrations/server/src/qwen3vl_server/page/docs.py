"""`/docs`: Swagger UI, made in the browser from `/openapi.json`. It loads nothing from other hosts."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from fastapi import APIRouter, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.types import Scope

from qwen3vl_server.asgi import local_path
from qwen3vl_server.errors import RequestError
from qwen3vl_server.page.files import BASE_POLICY, PageFile, respond_with_file

router = APIRouter()

DOCS_PATH = "/docs"
_NAMES = frozenset({"favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css"})
# FastAPI's page has its script in it.
_SOURCES = "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:"
_POLICY = f"{BASE_POLICY}; {_SOURCES}"


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
    """Return the page. Its references are relative: a proxy may have the server below a path."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="qwen3vl API",
        swagger_js_url="docs/swagger-ui-bundle.js",
        swagger_css_url="docs/swagger-ui.css",
        swagger_favicon_url="docs/favicon-32x32.png",
    )
    return respond_with_file(PageFile.of(bytes(page.body), ".html"), request, _POLICY)


@router.get(DOCS_PATH + "/{name}", include_in_schema=False)
async def file(name: str, request: Request) -> Response:
    """Return a file of the page."""
    if name not in _NAMES:
        raise RequestError(404, f"the documentation has no file {name!r}")
    return respond_with_file(_swagger_file(name), request, _POLICY)


@cache
def _swagger_file(name: str) -> PageFile:
    """Return one of the files that fastapi-swagger brings: Swagger UI, as its project publishes it."""
    path = files("fastapi_swagger.resources") / name
    return PageFile.of(path.read_bytes(), name[name.rindex(".") :])

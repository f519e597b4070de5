"""`create_app`: models as an ASGI application."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from qwen3vl.backends import BackendOwner
from qwen3vl.embedder import Embedder
from qwen3vl.reranker import Reranker
from qwen3vl.stores import AsyncStore
from qwen3vl_server import operations
from qwen3vl_server.asgi import HeadRequests, local_path
from qwen3vl_server.auth import ApiKeys
from qwen3vl_server.dialects import cohere, native, openai, rerank, score, voyage
from qwen3vl_server.errors import ERROR_RESPONSES, RequestError, body_error, error_response
from qwen3vl_server.library import documents_api, media_api, search_api
from qwen3vl_server.library.access import OpenRequests
from qwen3vl_server.library.library import Library
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.requests import is_upload
from qwen3vl_server.lifetime import RequestLifetime
from qwen3vl_server.metrics import Metrics
from qwen3vl_server.observability import Observability
from qwen3vl_server.page import docs
from qwen3vl_server.page import routes as page
from qwen3vl_server.quotas import Quota
from qwen3vl_server.service import Kind, ModelService
from qwen3vl_server.settings import ServerSettings
from qwen3vl_server.sites import SiteGuard

_ROUTERS = (
    openai.router,
    cohere.router,
    voyage.router,
    rerank.router,
    score.router,
    native.router,
    operations.router,
    docs.router,
)
_LIBRARY_ROUTERS = (search_api.router, documents_api.router, media_api.router, page.router)
"""Those of a server with a store."""


def create_app(
    *,
    embedder: Embedder | None = None,
    reranker: Reranker | None = None,
    embedders: Mapping[str, Embedder] | None = None,
    rerankers: Mapping[str, Reranker] | None = None,
    store: AsyncStore | None = None,
    media: str | Path | MediaFolder | None = None,
    settings: ServerSettings | None = None,
) -> FastAPI:
    """Make the application that serves models, to be run by an ASGI server or mounted in another application.

    Args:
        embedder: The embedding model.
        reranker: The reranker.
        embedders: Further embedding models, by what requests call them: the same model with LoRA adapters.
        rerankers: Further rerankers.
        store: A store of either kind, to be searched and written, with a page for people at `/`. The media policy
            of the models decides which files its documents may show.
        media: Folder for the files of documents that clients send, which the media policy of the models must allow;
            None refuses them. One application at a time can use the folder for a collection.
        settings: Keys, names and limits; None is the default of each.

    Returns:
        The application. It does not close the models and the store.

    Raises:
        ValueError: There is no model, two have one name, or the media policy of one allows every file; there is a store
            and no embedding model, or a folder for files that the policy does not allow.
        StoreError: Another process uses that folder, or it has the files of another store.

    Example:
        ```python
        from qwen3vl import Embedder
        from qwen3vl_server import SERVER_POLICY, create_app

        app = create_app(embedder=Embedder("tiny", policy=SERVER_POLICY))
        ```
    """
    settings = settings or ServerSettings()
    models: dict[Kind, BackendOwner[Any]] = {}
    if embedder is not None:
        models["embedder"] = embedder
    if reranker is not None:
        models["reranker"] = reranker
    further: dict[Kind, Mapping[str, BackendOwner[Any]]] = {"embedder": embedders or {}, "reranker": rerankers or {}}
    labelled: dict[str, BackendOwner[Any]] = {}
    labelled.update(models.items())
    for kind, named in further.items():
        if named and kind not in models:
            raise ValueError(f"{', '.join(named)}: further models need a first one; pass {kind}")
        labelled |= {f"{kind}/{name}": model for name, model in named.items()}
    _check_models(labelled)

    service = ModelService(models, settings, further)
    folder = media if media is None or isinstance(media, MediaFolder) else Path(media)
    library = None if store is None else Library(service, store, folder, settings)
    routers = _ROUTERS if library is None else (*_ROUTERS, *_LIBRARY_ROUTERS)
    lifespan = None if library is None else library.lifespan
    # FastAPI's own pages of documentation load their scripts from another host.
    app = FastAPI(title="qwen3vl", version=version("qwen3vl"), docs_url=None, redoc_url=None, lifespan=lifespan)
    for router in routers:
        app.include_router(router, responses=ERROR_RESPONSES, dependencies=_security(router, settings))
    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)

    waiting_bytes = Quota(settings.max_waiting_bytes, "bytes of requests waiting")
    paths = [route.path for router in routers for route in router.routes if isinstance(route, APIRoute)]
    metrics = Metrics(labelled, service.waiting_items, waiting_bytes, paths)
    app.state.service, app.state.metrics, app.state.library = service, metrics, library
    # The last one is the outermost.
    app.add_middleware(HeadRequests)
    app.add_middleware(
        RequestLifetime,
        max_body_bytes=settings.max_body_bytes,
        waiting_bytes=waiting_bytes,
        timeout_s=settings.timeout_s,
        is_streamed=is_upload,
    )
    if not settings.api_keys:
        app.add_middleware(SiteGuard, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(ApiKeys, keys=settings.api_keys, is_open=OpenRequests(library))
    app.add_middleware(Observability, observe=metrics.observe)
    return app


def _security(router: APIRouter, settings: ServerSettings) -> list[Any]:
    """Return what makes the description of routes name the key. The key itself is checked before they are chosen."""
    needs_key = settings.api_keys and router not in (operations.router, docs.router, page.router)
    return [Security(HTTPBearer(auto_error=False, description="One of the server's API keys"))] if needs_key else []


def _check_models(models: dict[str, BackendOwner[Any]]) -> None:
    if not models:
        raise ValueError("there is no model to serve; pass embedder, reranker, or both")
    for kind, model in models.items():
        if model.policy.folders is None:
            raise ValueError(
                f"the media policy of the {kind} is meant for references of the application itself: it allows every "
                "file. Load the model with policy=qwen3vl_server.SERVER_POLICY, or a policy with folders=()"
            )


def _answer_error(request: Request, error: Exception) -> Response:
    headers: Mapping[str, str] = {}
    if isinstance(error, RequestValidationError):
        error = body_error(error)
    elif isinstance(error, HTTPException):  # of FastAPI itself: an unknown path or method, a body that is not JSON
        headers = error.headers or {}
        error = RequestError(error.status_code, f"{error.detail}; {_hint(request)}")
    assert isinstance(error, RequestError)  # noqa: S101 (no other class is registered)
    response = error_response(error)
    response.headers.update(headers)  # such as Allow, which a wrong method has to be answered with
    return response


def _hint(request: Request) -> str:
    root_path = request.scope.get("root_path", "")
    if root_path and local_path(request.scope).startswith(f"{root_path}/"):
        return f"{root_path} is still in the path: the proxy has to remove it"
    return "/docs lists the endpoints"

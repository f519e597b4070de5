"""`create_app`: models as an ASGI application."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from qwen3vl.backends import BackendOwner
from qwen3vl.embedder import Embedder
from qwen3vl.reranker import Reranker
from qwen3vl_server import operations
from qwen3vl_server.auth import ApiKeys
from qwen3vl_server.dialects import native, openai, rerank, score
from qwen3vl_server.errors import RequestError, body_error, error_response
from qwen3vl_server.lifetime import RequestLifetime
from qwen3vl_server.metrics import Metrics
from qwen3vl_server.observability import Observability
from qwen3vl_server.quotas import Quota
from qwen3vl_server.service import Kind, ModelService
from qwen3vl_server.settings import ServerSettings

_ROUTERS = (openai.router, rerank.router, score.router, native.router, operations.router)


def create_app(
    *, embedder: Embedder | None = None, reranker: Reranker | None = None, settings: ServerSettings | None = None
) -> FastAPI:
    """Make the application that serves models, to be run by an ASGI server or mounted in another application.

    Args:
        embedder: The embedding model.
        reranker: The reranker.
        settings: Keys, names and limits; None is the default of each.

    Returns:
        The application. It does not close the models.

    Raises:
        ValueError: There is no model, or the media policy of one allows every file.

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
    _check_models(models)

    app = FastAPI(title="qwen3vl", version=version("qwen3vl"), redoc_url=None)
    for router in _ROUTERS:
        app.include_router(router)
    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_error)

    waiting_bytes = Quota(settings.max_waiting_bytes, "bytes of requests waiting")
    service = ModelService(models, settings)
    paths = [route.path for router in _ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    metrics = Metrics(models, service.waiting_items, waiting_bytes, paths)
    app.state.service, app.state.metrics = service, metrics
    # The last one is the outermost.
    app.add_middleware(
        RequestLifetime,
        max_body_bytes=settings.max_body_bytes,
        waiting_bytes=waiting_bytes,
        timeout_s=settings.timeout_s,
    )
    app.add_middleware(ApiKeys, keys=settings.api_keys)
    app.add_middleware(Observability, observe=metrics.observe)
    return app


def _check_models(models: dict[Kind, BackendOwner[Any]]) -> None:
    if not models:
        raise ValueError("there is no model to serve; pass embedder, reranker, or both")
    for kind, model in models.items():
        if not hasattr(model, "engine"):
            raise ValueError(f"the {kind} is in another server; serve a model that runs in this process")
        if model.engine.settings.policy.folders is None:
            raise ValueError(
                f"the media policy of the {kind} is meant for references of the application itself: it allows every "
                "file. Load the model with policy=qwen3vl_server.SERVER_POLICY, or a policy with folders=()"
            )


def _answer_error(_request: Any, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = body_error(error)
    elif isinstance(error, HTTPException):  # of FastAPI itself: an unknown path or method, a body that is not JSON
        error = RequestError(error.status_code, f"{error.detail}; /docs lists the endpoints")
    assert isinstance(error, RequestError)  # noqa: S101 (no other class is registered)
    return error_response(error)

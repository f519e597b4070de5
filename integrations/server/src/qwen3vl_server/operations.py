"""Endpoints for those who run the server: `/health`, `/ready` and `/metrics`."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from qwen3vl_server.dependencies import ServiceDependency
from qwen3vl_server.errors import RequestError
from qwen3vl_server.metrics import Metrics

router = APIRouter(tags=["Operations"])


@router.get("/health", summary="Whether the process runs")
async def health() -> dict[str, str]:
    """Answer at once, whatever the models are doing."""
    return {"status": "ok"}


@router.get("/ready", summary="Whether requests can be answered")
async def ready(service: ServiceDependency) -> dict[str, str]:
    """Answer with status 503 once a model is closed."""
    if not service.ready:
        raise RequestError(503, "a model is closed; the server is shutting down")
    return {"status": "ready"}


@router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
async def metrics(request: Request) -> Response:
    """Return counts of requests, and the engines' statistics."""
    registry: Metrics = request.app.state.metrics
    return Response(registry.render(), media_type=CONTENT_TYPE_LATEST)

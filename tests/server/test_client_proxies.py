"""Clients behind a proxy that accepts smaller bodies than the server, or redirects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen3vl_server import create_app
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from qwen3vl import Embedder, PolicyError, Reranker, ServerError
from tests.support.engines import assert_close
from tests.support.http_server import Server
from tests.support.model_server import ModelServer

MAX_BYTES = 20_000
REFUSAL = r"with \d+ bytes \(status 413\): a proxy before the server accepts smaller bodies only; raise its limit"


class SmallProxy:
    """Middleware that refuses large bodies as nginx does, after it has read them."""

    def __init__(self, app: ASGIApp, sizes: list[int]) -> None:
        self._app, self._sizes = app, sizes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            request = Request(scope, receive)
            if int(request.headers["Content-Length"]) > MAX_BYTES:
                self._sizes.append(len(await request.body()))
                page = "<html><head><title>413 Request Entity Too Large</title></head></html>"
                await HTMLResponse(page, 413)(scope, receive, send)
                return
        await self._app(scope, receive, send)


@pytest.fixture
def refused() -> list[int]:
    """The sizes of the bodies that the proxy has refused."""
    return []


@pytest.fixture
def behind(models: dict[str, Any], refused: list[int]) -> Iterator[ModelServer]:
    app = create_app(**models)
    app.add_middleware(SmallProxy, sizes=refused)
    with ModelServer(app) as server:
        yield server


def noise(seed: int, side: int) -> Image.Image:
    """An image whose PNG is no smaller than its pixels."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_requests_are_made_smaller(behind: ModelServer, refused: list[int], tiny_embedder: Embedder) -> None:
    inputs: list[Any] = [*(noise(seed, 40) for seed in range(12)), *(f"text {n} {'word ' * 300}" for n in range(12))]
    inputs.insert(5, noise(99, 100))  # 30,000 bytes
    with Embedder(behind.url) as embedder:
        batch = embedder.embed(inputs, on_error="collect")
        num_refused = len(refused)
        again = embedder.embed(inputs[6:], on_error="collect")
    kept = [index for index in range(len(inputs)) if index != 5]
    local = tiny_embedder.embed([inputs[index] for index in kept])
    assert_close(batch.values[kept], local)
    (error,) = batch.errors
    assert (error.index, type(error.__cause__)) == (5, PolicyError)
    with pytest.raises(PolicyError, match=REFUSAL):
        raise error.__cause__ or error
    assert not again.errors
    assert len(refused) == num_refused  # what comes later has the size that was found


def test_documents_that_are_too_large_for_a_proxy(behind: ModelServer) -> None:
    with Reranker(behind.url) as reranker:
        batch = reranker.score("a star", ["a text", noise(1, 100), "another"], on_error="collect")
    assert [error.index for error in batch.errors] == [1]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_name_the_address(status: int) -> None:
    with Server() as server:
        url = f"http://127.0.0.1:{server.port}"
        location = {"Location": "https://models.example/qwen3vl/models"}
        server.pages["/qwen3vl/models"] = (status, location, b"<html>moved")
        with pytest.raises(ServerError, match=r"redirects GET /qwen3vl/models.*: https://models\.example$") as caught:
            Embedder(url)
        assert caught.value.status == status
        server.pages["/v1/models"] = (status, {"Location": "/elsewhere"}, b"")
        with pytest.raises(ServerError, match=f"redirects GET /v1/models.*: {url}/elsewhere$"):
            Embedder(f"vllm+{url}")

"""`create_app` and its settings; request ids, metrics and the description of the interface."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, MediaPolicy, Reranker
from tests.support.model_server import ModelServer, wait_until


@pytest.fixture(scope="module")
def embedder() -> Iterator[Embedder]:
    with Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder:
        yield embedder


@pytest.fixture(scope="module")
def server(embedder: Embedder) -> Iterator[ModelServer]:
    with ModelServer(create_app(embedder=embedder, settings=ServerSettings(embedder_name="shapes"))) as server:
        yield server


def test_app_needs_a_model_with_a_policy_for_strangers() -> None:
    with pytest.raises(ValueError, match="there is no model to serve"):
        create_app()
    with Embedder("tiny", device="cpu") as trusting, pytest.raises(ValueError, match="SERVER_POLICY"):
        create_app(embedder=trusting)
    with Embedder("tiny", device="cpu", policy=MediaPolicy(folders=())) as careful:
        create_app(embedder=careful)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"api_keys": ""}, "api_keys has a key that is empty"),
        ({"api_keys": ("fine", "two words")}, "api_keys has a key"),
        ({"timeout_s": 0}, "timeout_s is 0; it must be more than 0"),
        ({"timeout_s": float("inf")}, "and finite"),
        ({"max_items": 10, "max_waiting_items": 5}, "raise max_waiting_items"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServerSettings(**settings)
    assert ServerSettings(api_keys="one").api_keys == ("one",)


def test_names_of_models(server: ModelServer) -> None:
    assert server.client.get("/v1/models").json()["data"][0]["id"] == "shapes"
    assert server.answer("/v1/embeddings", {"model": "shapes", "input": "a"})["model"] == "shapes"
    assert server.post("/v1/embeddings", {"model": "tiny", "input": "a"}).status_code == 404


def test_models_of_one_name_are_listed_once(embedder: Embedder) -> None:
    settings = ServerSettings(embedder_name="qwen", reranker_name="qwen")
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    with reranker, ModelServer(create_app(embedder=embedder, reranker=reranker, settings=settings)) as server:
        (model,) = server.client.get("/v1/models").json()["data"]
        assert (model["id"], model["kinds"]) == ("qwen", ["embedder", "reranker"])
        assert model["max_model_len"] == min(embedder.recipe.max_length, reranker.recipe.max_length)
        assert server.answer("/v1/embeddings", {"model": "qwen", "input": "a"})["model"] == "qwen"
        assert server.answer("/v1/rerank", {"model": "qwen", "query": "a", "documents": ["a"]})["model"] == "qwen"


def test_app_mounted_in_another(embedder: Embedder) -> None:
    outer = FastAPI()
    outer.mount("/models", create_app(embedder=embedder, settings=ServerSettings(api_keys=("key",))))
    outer.state.service = None
    with ModelServer(outer) as server:
        assert server.client.get("/models/health").status_code == 200
        assert server.post("/models/v1/embeddings", {"input": "a"}).status_code == 401
        assert server.post("/models/v1/embeddings", {"input": "a"}, Authorization="Bearer key").status_code == 200


def test_request_ids(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="qwen3vl_server")
    response = server.client.get("/health", headers={"X-Request-ID": "trace-1"})
    assert response.headers["X-Request-ID"] == "trace-1"
    response = server.client.get("/health", headers={"X-Request-ID": "a b"})
    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])
    assert "request_id=trace-1 method=GET path=/health status=200" in caplog.text
    server.client.get("/a%0Arequest_id=trace-2%20method=GET", headers={"X-Request-ID": "trace-3"})
    wait_until(lambda: "request_id=trace-3" in caplog.text)
    assert "path=/a%0Arequest_id%3Dtrace-2%20method%3DGET status=404" in caplog.text


def test_unknown_paths_and_methods(server: ModelServer) -> None:
    for method, path, status in (("GET", "/v1/chat/completions", 404), ("GET", "/v1/embeddings", 405)):
        response = server.client.request(method, path)
        assert response.status_code == status
        assert "/docs lists the endpoints" in response.json()["error"]["message"]
    assert response.headers["Allow"] == "POST"


def test_head_is_answered_as_get_without_a_body(server: ModelServer, caplog: pytest.LogCaptureFixture) -> None:
    """As health checks of proxies and monitors send it."""
    caplog.set_level("INFO", logger="qwen3vl_server")
    for path in ("/health", "/ready", "/v1/models", "/docs", "/openapi.json"):
        head, get = (server.client.request(method, path) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b""), path
        assert get.content
        for name in ("Content-Length", "Content-Type"):
            assert head.headers[name] == get.headers[name]
    assert server.client.head("/no/such/path").status_code == 404
    assert server.client.head("/v1/embeddings").headers["Allow"] == "POST"
    wait_until(lambda: "method=HEAD path=/ready status=200" in caplog.text)
    assert 'qwen3vl_requests_total{path="/ready",status="200"} 2.0' in server.client.get("/metrics").text


async def test_head_has_no_body_in_any_asgi_server(embedder: Embedder) -> None:
    """Those that do not leave it out themselves."""
    transport = httpx.ASGITransport(create_app(embedder=embedder))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.head("/health")
    assert (response.status_code, response.content) == (200, b"")


def test_body_that_is_not_json(server: ModelServer) -> None:
    for content, content_type, reason in (
        (b'{"input": "a", }', "application/json", "at character 15"),
        (b'{"input": "a"}', "text/plain", "send it with Content-Type: application/json"),
        (b"\xff", "application/json", ""),
    ):
        response = server.client.post("/v1/embeddings", content=content, headers={"Content-Type": content_type})
        assert response.status_code == 400, content
        error = response.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", None)
        assert error["message"].endswith(reason)


def test_metrics(server: ModelServer, embedder: Embedder) -> None:
    server.answer("/v1/embeddings", {"input": ["a", "b"]})
    server.client.get("/no/such/path")
    text = server.client.get("/metrics").text
    metrics = dict(re.findall(r"^(\w+(?:\{[^}]*\})?) (\S+)$", text, re.MULTILINE))
    stats = embedder.engine.stats
    assert float(metrics['qwen3vl_engine_items_total{model="embedder"}']) == stats.items
    assert float(metrics['qwen3vl_engine_tokens_computed_total{model="embedder"}']) == stats.tokens_computed
    assert float(metrics['qwen3vl_requests_total{path="/v1/embeddings",status="200"}']) >= 1
    assert float(metrics['qwen3vl_requests_total{path="other",status="404"}']) >= 1
    assert "/no/such/path" not in text
    assert float(metrics["qwen3vl_waiting_items"]) == 0


def test_openapi_examples_are_accepted(embedder: Embedder) -> None:
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    with reranker, ModelServer(create_app(embedder=embedder, reranker=reranker)) as server:
        openapi = server.client.get("/openapi.json").json()
        posts = {path: operations["post"] for path, operations in openapi["paths"].items() if "post" in operations}
        assert len(posts) == 11
        for path, operation in posts.items():
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            if "$ref" in schema:
                schema = openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
            assert schema["examples"]
            for example in schema["examples"]:
                server.answer(path, example)
        assert server.client.get("/docs").status_code == 200

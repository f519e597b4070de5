"""Keys, limits, clients that leave, and a server that shuts down: in front of a device that is busy."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import create_connection
from typing import Any

import httpx
import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.errors import RequestError
from qwen3vl_server.quotas import Quota

from qwen3vl import Reranker
from tests.support.engines import GatedForward, embedder_with
from tests.support.model_server import ModelServer, wait_until

KEYS = ("first-key", "second-key")
AUTHORIZATION = {"Authorization": "Bearer first-key"}
LIMITS = ServerSettings(
    api_keys=KEYS, max_body_bytes=100_000, max_waiting_bytes=150_000, max_items=4, max_waiting_items=6
)


@pytest.fixture(scope="module")
def limited(models: dict[str, Any]) -> Iterator[ModelServer]:
    with ModelServer(create_app(**models, settings=LIMITS)) as server:
        server.client.headers.update(AUTHORIZATION)
        yield server


def embed_in_thread(server: ModelServer, inputs: list[str], threads: ThreadPoolExecutor) -> Any:
    waiting = server.waiting_items
    future = threads.submit(server.post, "/v1/embeddings", {"input": inputs})
    server.wait_for_items(waiting + len(inputs))
    return future


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer first-key", 200),
        ("bearer  second-key", 200),
        *(
            (value, 401)
            for value in (
                "",
                "Bearer",
                "Bearer first",
                "Bearer first-key2",
                "Basic first-key",
                "first-key",
                "Bearer séc",
            )
        ),
    ],
)
def test_requests_need_one_of_the_keys(limited: ModelServer, authorization: str, status: int) -> None:
    response = httpx.get(f"{limited.url}/v1/models", headers=[(b"Authorization", authorization.encode())])
    assert response.status_code == status, response.text
    if status == 401:
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
    assert httpx.get(f"{limited.url}/v1/unknown").status_code == 401


def test_probes_need_no_key_and_metrics_do(limited: ModelServer) -> None:
    assert httpx.get(f"{limited.url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{limited.url}/ready").json() == {"status": "ready"}
    assert httpx.get(f"{limited.url}/metrics").status_code == 401


@pytest.mark.parametrize("streamed", [False, True])
def test_body_that_is_too_large_gets_413(limited: ModelServer, streamed: bool) -> None:
    body = b'{"input": "' + b"a" * 200_000 + b'"}'
    content = iter([body[:50_000], body[50_000:]]) if streamed else body
    response = limited.client.post("/v1/embeddings", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 413
    assert "at most 100000 are accepted" in response.json()["error"]["message"]


def test_too_many_items_get_422(limited: ModelServer) -> None:
    for path, body in (
        ("/v1/embeddings", {"input": ["a"] * 5}),
        ("/v1/rerank", {"query": "a", "documents": ["a"] * 5}),
        ("/v1/score", {"text_1": ["a"] * 5, "text_2": ["a"] * 5}),
    ):
        response = limited.post(path, body)
        assert response.status_code == 422
        assert "5 items, and at most 4" in response.json()["message"]


def test_busy_server_answers_429_and_then_what_it_accepted(limited: ModelServer, busy: GatedForward) -> None:
    with ThreadPoolExecutor(3) as threads:
        first = embed_in_thread(limited, ["a", "b", "c", "d"], threads)
        second = embed_in_thread(limited, ["e"], threads)
        refused = [limited.post("/v1/rerank", {"query": "a", "documents": ["b", "c"]})]
        third = embed_in_thread(limited, ["f" * 80_000], threads)
        refused.append(limited.post("/v1/embeddings", {"input": "g" * 80_000}))
        busy.resume.set()
        assert [accepted.result().status_code for accepted in (first, second, third)] == [200, 200, 200]
    for response, unit in zip(refused, ("items waiting", "bytes of requests waiting"), strict=True):
        assert response.status_code == 429
        assert 1 <= int(response.headers["Retry-After"]) <= 60
        assert response.json()["error"]["type"] == "rate_limit_error"
        assert unit in response.json()["message"]
    assert limited.post("/v1/rerank", {"query": "a", "documents": ["b", "c"]}).status_code == 200


def test_retry_after_is_how_long_the_excess_takes() -> None:
    now = [0.0]
    quota = Quota(10, "items", clock=lambda: now[0])

    def refused_for(amount: int) -> int:
        with pytest.raises(RequestError) as caught:
            quota.add(amount)
        assert caught.value.status == 429
        return caught.value.retry_after_s

    for _ in range(100):  # leases of 8 s
        with quota.lease() as lease:
            lease.add(5)
            now[0] += 8
    with quota.lease() as lease:
        lease.add(8)  # one item per second is given back
        assert quota.used == 8
        assert [refused_for(amount) for amount in (3, 4, 10)] == [1, 2, 8]
        assert refused_for(10**6) == 60
    assert Quota(10, "items").used == quota.used == 0


def test_client_that_leaves_is_cancelled_in_the_engine(
    limited: ModelServer, models: dict[str, Any], busy: GatedForward
) -> None:
    body = b'{"input": ["left", "alone"]}'
    head = (
        "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer first-key\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    scheduler = models["embedder"].engine._scheduler
    with create_connection(("127.0.0.1", limited.port)) as connection:
        connection.sendall(head.encode() + body)
        limited.wait_for_items(2)
        wait_until(lambda: scheduler._calls)
    limited.wait_for_items(0)  # while the device is still busy
    assert not scheduler._calls
    assert not busy.resume.is_set()
    assert 'qwen3vl_requests_total{path="/v1/embeddings",status="499"} 1.0' in limited.client.get("/metrics").text


def test_time_limit_of_answers_and_uploads(models: dict[str, Any], busy: GatedForward) -> None:
    app = create_app(**models, settings=ServerSettings(timeout_s=0.3))
    with ModelServer(app) as server:
        response = server.post("/v1/embeddings", {"input": ["a"]})
        # Clients that repeat what fails would have the server compute it all again.
        assert (response.status_code, response.headers["x-should-retry"]) == (422, "false")
        assert "Retry-After" not in response.headers
        assert response.json()["error"]["code"] == "timeout"
        assert server.waiting_items == 0
        with create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf")
            assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_clients_of_cohere_do_not_repeat_what_took_too_long(models: dict[str, Any], busy: GatedForward) -> None:
    cohere = pytest.importorskip("cohere")
    with ModelServer(create_app(**models, settings=ServerSettings(timeout_s=0.3))) as server:
        client = cohere.ClientV2(base_url=server.url, api_key="none")
        with pytest.raises(cohere.UnprocessableEntityError, match="took longer than"):
            client.embed(model="tiny", texts=["a"], input_type="search_document", embedding_types=["float"])
        metrics = server.client.get("/metrics").text
        assert 'qwen3vl_requests_total{path="/v2/embed",status="422"} 1.0' in metrics


def test_server_that_is_told_to_stop_answers_what_it_accepted(models: dict[str, Any], busy: GatedForward) -> None:
    with ThreadPoolExecutor(1) as threads, ModelServer(create_app(**models)) as server:
        accepted = embed_in_thread(server, ["a", "b"], threads)
        server.stop()
        wait_until(lambda: not _accepts(server.port))
        assert not accepted.done()
        busy.resume.set()
        assert len(accepted.result().json()["data"]) == 2


def _accepts(port: int) -> bool:
    try:
        create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_many_clients_share_batches(limited: ModelServer, models: dict[str, Any], busy: GatedForward) -> None:
    packs = models["embedder"].engine.stats.packs
    with ThreadPoolExecutor(6) as threads:
        futures = [embed_in_thread(limited, [f"text {number}"], threads) for number in range(6)]
        busy.resume.set()
        assert all(future.result().status_code == 200 for future in futures)
    assert models["embedder"].engine.stats.packs - packs < 6


def test_model_that_is_closed_or_not_served() -> None:
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    with ModelServer(create_app(reranker=reranker)) as server:
        response = server.post("/v1/embeddings", {"input": "a"})
        assert response.status_code == 404
        assert "this server has no embedder; start it with --embedder MODEL" in response.json()["message"]
        reranker.close()
        assert server.client.get("/health").status_code == 200
        assert server.client.get("/ready").status_code == 503
        assert server.post("/v1/rerank", {"query": "a", "documents": ["a"]}).status_code == 503


def test_unexpected_failure_is_a_500_that_tells_nothing_but_its_id(
    models: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(GatedForward):
        def __call__(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("/secret/path is broken")

    broken = embedder_with(Path("tiny"), stages={"forward": Broken()}, policy=SERVER_POLICY)
    with ModelServer(create_app(embedder=broken)) as server:
        response = server.post("/v1/embeddings", {"input": "a"})
        assert response.status_code == 500
        assert response.json()["error"]["type"] == "server_error"
        assert "secret" not in response.text
        assert "secret" in caplog.text
        del server.app.state.service  # a fault of the server itself
        response = server.post("/v1/embeddings", {"input": "a"}, **{"X-Request-ID": "r-1"})
        assert response.status_code == 500
        assert response.headers["X-Request-ID"] == "r-1"
        assert "under request id r-1" in response.json()["message"]
        assert "in get_service" in caplog.text  # the traceback is whole

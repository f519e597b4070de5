"""Calls of a deployment's replicas: where they go, and what happens if they fail, are cancelled or die."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen3vl_ray.serve import ROUTER
from qwen3vl_ray.serving.backends import DeployedEmbedder, DeployedReranker, HandleEmbedder, HandleReranker
from qwen3vl_ray.serving.ingress import Ingress, ServedDeployment
from qwen3vl_ray.serving.replicas import ModelChoice
from qwen3vl_ray.serving.routing import content_key
from qwen3vl_server import SERVER_POLICY, ServerSettings
from qwen3vl_server.errors import RequestError
from ray import serve

from qwen3vl import InputError, MediaError, ServerError
from qwen3vl.inputs import as_item
from tests.ray.workers import SHORT_INTERVALS
from tests.support.model_server import ServerClient, wait_until
from tests.support.serve_replicas import RECIPE, ProcessReplica
from tests.support.store_backends import free_port

NUM_REPLICAS = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


def deploy(name: str, *arguments: Any, num_replicas: int = 1) -> Any:
    """Deploy replicas without a route; return their handle."""
    deployment: Any = serve.deployment(
        ProcessReplica,
        num_replicas=num_replicas,
        ray_actor_options={"num_cpus": 0.1},
        request_router_config={"request_router_class": ROUTER},
        max_ongoing_requests=64,
        **SHORT_INTERVALS,
    )
    return serve.run(deployment.bind(*arguments), name=name, route_prefix=None)


@pytest.fixture(scope="module")
def handle(local_ray: Any, folder: Path, port: int) -> Iterator[Any]:
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield deploy("processes", folder, num_replicas=NUM_REPLICAS)
    serve.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def embedder(handle: Any) -> Iterator[DeployedEmbedder]:
    with DeployedEmbedder(HandleEmbedder(handle, RECIPE, SERVER_POLICY)) as embedder:
        yield embedder


def png(seed: int) -> bytes:
    from io import BytesIO

    encoded = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def test_equal_media_go_to_one_replica(embedder: DeployedEmbedder) -> None:
    images = [{"image": png(seed), "text": f"caption {seed}"} for seed in range(24)]
    processes = embedder.embed(images)
    assert len(np.unique(processes)) == NUM_REPLICAS
    for _ in range(3):
        again = embedder.embed([{**image, "text": "another caption"} for image in images[::-1]])
        assert np.array_equal(again[::-1], processes)
    # Texts go anywhere, one call after the other.
    assert len({float(embedder.embed("a text")[0, 0]) for _ in range(60)}) == NUM_REPLICAS


def test_documents_follow_their_own_media_and_then_the_query_s(handle: Any, embedder: DeployedEmbedder) -> None:
    page, photo = png(1), png(2)
    with DeployedReranker(HandleReranker(handle, RECIPE, SERVER_POLICY)) as reranker:
        of_page, of_photo = embedder.embed([{"image": page}, {"image": photo}])[:, 0]
        scores = reranker.score({"image": photo}, [{"image": page}, "a text", "another text"])
        assert scores.tolist() == [of_page, of_photo, of_photo]
        assert reranker.score("a text", [{"image": page}]).tolist() == [of_page]


def test_keys_of_media() -> None:
    image, other = png(1), png(2)
    keys = [
        content_key(as_item(value))
        for value in (
            {"image": image},
            {"image": [image, other], "text": "a caption"},
            {"image": other},
            {"image": "slides.pdf#page=1"},
            {"image": "slides.pdf#page=2"},
            {"video": "clip.mp4#t=1,2"},
            {"video": "clip.mp4#t=2,3"},
            {"video": [image, other]},
        )
    ]
    assert keys[0] == keys[1]
    assert len({*keys[1:7]}) == 6
    assert content_key(as_item("a text")) == "" != content_key(as_item("a text"), as_item({"image": image}))


def test_outputs_and_errors_are_in_the_order_of_the_inputs(embedder: DeployedEmbedder) -> None:
    inputs: list[Any] = ["one", {"image": png(1), "text": "two"}, "broken", {"image": png(2), "text": "four"}, ""]
    batch = embedder.embed(inputs * 50, on_error="collect")
    assert [batch.notices.get(index) for index in range(5)] == ["one", "two", None, "four", None]
    assert [error.index % 5 for error in batch.errors] == [2, 4] * 50
    assert batch.num_tokens == 150
    assert {type(error.__cause__) for error in batch.errors} == {InputError}
    assert (batch.errors[0].source, batch.errors[0].reason) == ("text 'broken'", "it is broken")


def test_concurrent_calls_for_one_request_are_all_sent(embedder: DeployedEmbedder) -> None:
    """Within an ingress, the context has the id of the request; the router confuses calls with equal ids."""
    context: Any = serve.context._RequestContext(request_id="one", _internal_request_id="one")
    token = serve.context._serve_request_context.set(context)
    try:
        assert len(embedder.embed([{"image": png(seed)} for seed in range(8)] * 16)) == 128
    finally:
        serve.context._serve_request_context.reset(token)


def test_query_that_cannot_be_used(handle: Any) -> None:
    some_documents: list[list[Any]] = [["one", {"image": png(1)}], [""]]
    with DeployedReranker(HandleReranker(handle, RECIPE, SERVER_POLICY)) as reranker:
        for documents in some_documents:
            with pytest.raises(InputError, match=r"the query \(photo.png\): it is broken") as caught:
                reranker.score("broken", documents)
            assert isinstance(caught.value.__cause__, MediaError)


def test_call_of_a_replica_that_dies_is_repeated(embedder: DeployedEmbedder, folder: Path) -> None:
    batch = embedder.embed(
        [*(f"text {number}" for number in range(40)), "die once", {"image": png(1)}], on_error="collect"
    )
    assert (folder / "died").exists()
    assert not batch.errors


def test_input_that_kills_replicas_fails_alone(
    embedder: DeployedEmbedder, handle: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen3vl_ray.serving.handles.MAX_ATTEMPTS", 2)
    batch = embedder.embed([{"image": png(5)}, {"image": png(6), "text": "die"}, {"image": png(7)}], on_error="collect")
    assert 1 in {error.index for error in batch.errors}
    for error in batch.errors:
        assert "replicas of ProcessReplica died 2 times" in error.reason
        assert isinstance(error.__cause__, ServerError)
    assert not embedder.embed(["afterwards", {"image": png(7)}], on_error="collect").errors


async def test_cancelled_call_is_cancelled_in_the_replica(embedder: DeployedEmbedder, folder: Path) -> None:
    call = asyncio.create_task(embedder.aembed("wait"))
    await asyncio.to_thread(wait_until, (folder / "waiting").exists)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.to_thread(wait_until, (folder / "cancelled").exists)


def test_time_that_is_up_is_answered_through_the_proxy_and_the_calls_end(handle: Any, folder: Path, port: int) -> None:
    choice = ModelChoice("none", SERVER_POLICY)
    options: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}, **SHORT_INTERVALS}
    deployment: Any = serve.deployment(ProcessReplica, name="Model", max_ongoing_requests=64, **options)
    model: Any = ServedDeployment(deployment.bind(folder), choice)
    ingress: Any = serve.deployment(serve.ingress()(Ingress), name="Ingress", **options)
    serve.run(ingress.bind(ServerSettings(timeout_s=1), embedder=model, reranker=model), name="server")
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/v1/embeddings", {"input": "wait"}),
        ("/v2/embed", {"texts": ["wait"], "input_type": "search_document", "embedding_types": ["float"]}),
        ("/v1/rerank", {"query": "a text", "documents": ["wait"]}),
    ]
    server = ServerClient(f"http://127.0.0.1:{port}")
    for path, body in requests:
        (folder / "cancelled").unlink(missing_ok=True)
        response = server.post(path, body)
        assert response.status_code == 422, response.text
        answer = response.json()
        assert (answer["error"]["type"], answer["error"]["code"]) == ("invalid_request_error", "timeout")
        message = "the answer took longer than 1 s; send smaller requests"
        assert answer["error"]["message"] == answer["message"] == answer["detail"] == message
        assert response.headers["x-should-retry"] == "false"
        wait_until((folder / "cancelled").exists)
    wait_until(lambda: "qwen3vl_waiting_items 0.0" in server.client.get("/metrics").text)
    assert len(server.answer("/v1/embeddings", {"input": ["a text"]})["data"]) == 1
    serve.delete("server")


def test_replicas_with_another_recipe_are_passed_over(local_ray: Any, handle: Any, folder: Path) -> None:
    other = deploy("other", folder, "another digest")
    with (
        DeployedEmbedder(HandleEmbedder(other, RECIPE, SERVER_POLICY)) as embedder,
        pytest.raises(RequestError, match="being exchanged") as caught,
    ):
        embedder.embed(["a text"])
    assert caught.value.status == 503
    serve.delete("other")


def test_closed_backend(handle: Any) -> None:
    embedder = DeployedEmbedder(HandleEmbedder(handle, RECIPE, SERVER_POLICY))
    assert not hasattr(embedder, "engine")
    embedder.close()
    assert embedder.closed
    with pytest.raises(RuntimeError, match="this model was closed"):
        embedder.embed("a text")

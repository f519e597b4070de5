"""The server on Ray Serve: its client's tests, and replicas that are killed or replaced under load.

The tests of `tests.server` that are imported here run against the deployment, by the fixture `golden_server` below.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from socket import socket
from typing import Any

import httpx
import pytest
from qwen3vl_ray.serve import ModelArguments, ServeArguments, build_app
from ray import serve

from qwen3vl import Embedder, RecipeError, Reranker
from tests.ray.workers import SHORT_INTERVALS, wait_for
from tests.server.test_client import (  # noqa: F401 (fixtures and tests)
    embedder,
    reranker,
    test_errors_of_items_are_those_of_an_engine_here,
    test_errors_of_queries_are_those_of_an_engine_here,
    test_golden_scores,
    test_golden_vectors_of_concurrent_calls,
    test_golden_vectors_of_one_call_in_any_order,
    test_media_of_every_type,
    test_notices_and_tokens,
    test_policy_of_the_caller_decides_what_is_read,
    test_recipe_is_that_of_an_engine_here,
)
from tests.server.test_embeddings import (  # noqa: F401
    test_golden_vectors_of_one_request,
    test_references_to_files_and_addresses_are_refused,
)
from tests.server.test_reranking import (  # noqa: F401
    test_parts_of_a_bare_content_are_documents,
    test_scores_of_one_query_and_of_pairs,
)
from tests.support.engines import assert_close
from tests.support.model_server import ServerClient, wait_until

pytestmark = pytest.mark.slow

NAME = "qwen3vl"
FEW_CORES: dict[str, Any] = {"ray_actor_options": {"num_cpus": 0.1}, **SHORT_INTERVALS}
INGRESS: dict[str, Any] = {
    # With an environment of their own, replicas of `local_ray` import what they need themselves.
    "ray_actor_options": {"num_cpus": 0.1, "runtime_env": {"env_vars": {"QWEN3VL_TEST_INGRESS": "1"}}},
    **SHORT_INTERVALS,
}
NUM_CLIENTS = 3
NUM_CALLS = 8
"""Calls at once that keep two of the replicas below busy."""
AUTOSCALED: dict[str, Any] = {
    "autoscaling_config": {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        # Seconds in place of Ray's half a minute and ten minutes.
        "metrics_interval_s": 0.2,
        "look_back_period_s": 1,
        "upscale_delay_s": 0.5,
        "downscale_delay_s": 0.5,
    },
}


def deploy(checkpoints: Path, **server: Any) -> None:
    """Deploy the golden checkpoints, or replace what is deployed."""
    two: dict[str, Any] = {**FEW_CORES, "num_replicas": 2}
    on_cpu = {"device": "cpu"}
    app = build_app(
        ServeArguments(
            embedder=ModelArguments(model=str(checkpoints / "embedding"), settings=on_cpu, deployment=two),
            reranker=ModelArguments(model=str(checkpoints / "reranker"), settings=on_cpu, deployment=FEW_CORES),
            server=server,
            ingress=INGRESS,
        )
    )
    serve.run(app, name=NAME)


@pytest.fixture(scope="module")
def golden_server(local_ray: Any, checkpoints: Path) -> Iterator[ServerClient]:
    """The golden checkpoints, on two replicas and one."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        deploy(checkpoints)
        yield ServerClient(f"http://127.0.0.1:{port}")
    finally:
        serve.shutdown()  # type: ignore[no-untyped-call]


@contextmanager
def repeated(calls: Sequence[Callable[[], Any]]) -> Iterator[Callable[[], int]]:
    """Make each call in a thread, again and again until the end of the context; raise what fails. Yields the count."""
    stop, failures, counts = threading.Event(), [], [0] * len(calls)

    def repeat(number: int) -> None:
        try:
            while not stop.is_set():
                calls[number]()
                counts[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    try:
        yield lambda: sum(counts) if not failures else pytest.fail(f"a call failed: {failures}")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


@contextmanager
def load(url: str, local: Embedder, photo: Path, *, max_retries: int) -> Iterator[Callable[[], int]]:
    """Embed by several clients until the end of the context; raise what fails. Yields the count of vectors."""
    inputs: list[Any] = ["a red circle", {"image": photo, "text": "with its caption"}, *(f"text {n}" for n in range(9))]
    expected = local.embed(inputs)

    def embed(client: Embedder) -> None:
        assert_close(client.embed(inputs), expected)

    with ExitStack() as stack:
        clients = [stack.enter_context(Embedder(url, max_retries=max_retries)) for _ in range(NUM_CLIENTS)]
        with repeated([partial(embed, client) for client in clients]) as count:
            yield lambda: count() * len(inputs)


def replicas(deployment: str, application: str = NAME) -> set[int]:
    """The processes of a deployment's replicas that run."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()
    details = client.get_serve_details()
    running = details["applications"][application]["deployments"].get(deployment, {"replicas": []})["replicas"]
    return {replica["pid"] for replica in running if replica["state"] == "RUNNING"}


@pytest.mark.parametrize(("deployment", "max_retries"), [("Embedder", 0), ("Ingress", 20)])
def test_killed_replica_loses_no_request(
    deployment: str, max_retries: int, golden_server: ServerClient, golden_embedder: Embedder, media: dict[str, Path]
) -> None:
    """A request is in an ingress of one replica when that is killed: the client repeats it, as for any proxy."""
    before = replicas(deployment)
    with load(golden_server.url, golden_embedder, media["photo"], max_retries=max_retries) as count:
        wait_until(lambda: count() > 0)
        victim = min(before)
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(replicas(deployment) - {victim}) == len(before), 180, poll_s=0.25)
        reached = count()
        wait_until(lambda: count() > reached + 50, 180)


def test_rolling_update_loses_no_request(
    golden_server: ServerClient, golden_embedder: Embedder, checkpoints: Path, media: dict[str, Path]
) -> None:
    before = replicas("Embedder") | replicas("Ingress")
    with load(golden_server.url, golden_embedder, media["photo"], max_retries=0) as count:
        wait_until(lambda: count() > 0)
        deploy(checkpoints, max_items=1000)
        wait_for(lambda: not before & (replicas("Embedder") | replicas("Ingress")), 180, poll_s=0.25)
        reached = count()
        wait_until(lambda: count() > reached + 50, 180)
    assert golden_server.client.get("/qwen3vl/models").json()["limits"]["max_items"] == 1000


def test_replicas_follow_the_load_of_their_own_model(golden_server: ServerClient) -> None:
    """Calls of one model start a second replica of it alone, which stops when they end; none of them fails."""
    tiny = ModelArguments(model="tiny", settings={"device": "cpu"}, deployment={**FEW_CORES, **AUTOSCALED})
    app = build_app(ServeArguments(embedder=tiny, reranker=tiny, ingress=FEW_CORES))
    serve.run(app, name="autoscaled", route_prefix="/autoscaled")

    def wait_for_replicas(**numbers: int) -> None:
        wait_for(lambda: all(len(replicas(name, "autoscaled")) == numbers[name] for name in numbers), 120, poll_s=0.25)

    url = f"{golden_server.url}/autoscaled"
    with ExitStack() as stack:
        stack.callback(serve.delete, "autoscaled")  # its replicas take the cores of other tests
        embedder = stack.enter_context(Embedder(url, max_retries=0))
        reranker = stack.enter_context(Reranker(url, max_retries=0))
        wait_for_replicas(Embedder=1, Reranker=1)
        with repeated([partial(embedder.embed, "a red circle")] * NUM_CALLS):
            wait_for_replicas(Embedder=2, Reranker=1)
        with repeated([partial(reranker.score, "a red circle", ["a blue star"])] * NUM_CALLS):
            wait_for_replicas(Embedder=1, Reranker=2)
        wait_for_replicas(Embedder=1, Reranker=1)


def test_client_that_leaves_and_time_that_is_up(golden_server: ServerClient) -> None:
    """Their work is dropped: the requests hold no items afterwards."""
    texts = [f"{'word ' * 300} {number}" for number in range(500)]
    with pytest.raises(httpx.ReadTimeout):
        golden_server.client.post("/v1/embeddings", json={"input": texts}, timeout=0.5)
    wait_until(lambda: "qwen3vl_waiting_items 0.0" in golden_server.client.get("/metrics").text)
    metrics = golden_server.client.get("/metrics").text
    assert 'qwen3vl_requests_total{path="/v1/embeddings",status="499"} 1.0' in metrics
    assert "qwen3vl_engine" not in metrics
    assert golden_server.answer("/v1/embeddings", {"input": "a"})["data"]


def test_ingress_has_no_torch_and_its_names_are_public(golden_server: ServerClient) -> None:
    models = golden_server.client.get("/v1/models").json()["data"]
    assert [(model["id"], model["max_model_len"]) for model in models] == [("embedding", 8192), ("reranker", 10240)]
    maps = [Path(f"/proc/{replicas(name).pop()}/maps") for name in ("Ingress", "Reranker")]
    if maps[0].exists():  # Linux
        assert ["libtorch" in each.read_text() for each in maps] == [False, True]


def test_model_that_is_replaced_by_another(
    golden_server: ServerClient, checkpoints: Path, media: dict[str, Path]
) -> None:
    """Vectors of two models are never mixed: a client of the former one gets an error."""
    with Embedder(golden_server.url) as former, Reranker(golden_server.url) as former_reranker:
        serve.run(
            build_app(
                ServeArguments(embedder=ModelArguments(model="tiny", settings={"device": "cpu"}), ingress=INGRESS)
            ),
            name=NAME,
        )
        with pytest.raises(RecipeError, match="create a new Embedder"):
            former.embed(["a text"])
        with pytest.raises(Exception, match="has no reranker"):
            former_reranker.score("a", ["b"])
        with Embedder(golden_server.url) as current, Embedder("tiny", device="cpu") as local:
            assert_close(current.embed(["a text"]), local.embed(["a text"]))

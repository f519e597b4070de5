"""What a client sends: contents once, no paths, in bounded requests; and what it does where a server refuses."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen3vl import Embedder, ModelError, RecipeError, Reranker, ServerError
from qwen3vl.client import requests
from qwen3vl.client.chunks import MAX_CHUNK_DELAY_S
from qwen3vl.client.transport import Transport
from qwen3vl.engine.replica import Replica
from qwen3vl.wire import encode_request
from tests.support.engines import GatedForward, assert_close, busy_embedder, embedder_with
from tests.support.http_server import Server
from tests.support.model_server import ModelServer, wait_until

KEY = "a-long-random-key"


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Any]]:
    with (
        Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder,
        Reranker("tiny", device="cpu", policy=SERVER_POLICY) as reranker,
    ):
        yield {"embedder": embedder, "reranker": reranker}


@pytest.fixture
def server(models: dict[str, Any]) -> Iterator[ModelServer]:
    """A server that has no contents yet."""
    with ModelServer(create_app(**models)) as server:
        yield server


@pytest.fixture
def busy() -> Iterator[GatedForward]:
    """The CPU is busy until the test sets `resume`."""
    with busy_embedder(Path("tiny")) as (_, forward):
        yield forward


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bodies of all requests."""
    bodies: list[bytes] = []

    def encode_and_keep(body: str, contents: Any) -> bytes:
        bodies.append(encode_request(body, contents))
        return bodies[-1]

    monkeypatch.setattr(requests, "encode_request", encode_and_keep)
    return bodies


def noise(path: Path, seed: int, side: int = 256) -> Path:
    """Write an image that cannot be compressed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_contents_are_sent_once_and_paths_never(
    server: ModelServer, tiny_embedder: Embedder, sent: list[bytes], tmp_path: Path
) -> None:
    photo, other = noise(tmp_path / "secret-name.png", 1), noise(tmp_path / "other.png", 2)
    content = photo.read_bytes()
    inputs: list[Any] = [{"image": photo}, {"image": [str(photo), other]}, {"image": content, "text": "a caption"}]
    with Embedder(server.url) as embedder:
        assert_close(embedder.embed(inputs), tiny_embedder.embed(inputs))
        assert [body.count(content) for body in sent] == [0, 1]
        assert_close(embedder.embed(inputs), tiny_embedder.embed(inputs))
    with Reranker(server.url) as reranker:
        reranker.score(photo, [other, f"{photo}"])
    assert [body.count(content) for body in sent] == [0, 1, 0, 0]
    document_text = str(photo).encode()
    assert [body.count(b"secret-name") for body in sent] == [0, 0, 0, 1]  # a str is a text
    assert document_text in sent[3]


def test_small_contents_are_sent_without_asking(server: ModelServer, sent: list[bytes]) -> None:
    with Embedder(server.url) as embedder:
        embedder.embed([Image.new("RGB", (64, 64), "red"), "a text"])
    assert len(sent) == 1


def test_content_of_concurrent_calls_is_sent_once(server: ModelServer, sent: list[bytes], tmp_path: Path) -> None:
    photo = noise(tmp_path / "photo.png", 1)
    with Reranker(server.url) as reranker, ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(reranker.score, photo, [f"document {number}"]) for number in range(8)]
        assert all(np.isfinite(call.result()).all() for call in calls)
        reranker.score(photo, [f"document {number}" for number in range(300)])
    assert sum(body.count(photo.read_bytes()) for body in sent) == 1


def test_server_that_keeps_no_contents_gets_them_each_time(
    models: dict[str, Any], tiny_embedder: Embedder, sent: list[bytes], tmp_path: Path
) -> None:
    photos = [{"image": noise(tmp_path / f"{number}.png", number)} for number in range(3)]
    app = create_app(**models, settings=ServerSettings(max_cached_bytes=0))
    with ModelServer(app) as server, Embedder(server.url) as embedder:
        for _ in range(2):
            assert_close(embedder.embed(photos), tiny_embedder.embed(photos))
    assert len(sent) == 4


def test_requests_are_bounded_by_items_and_bytes(
    models: dict[str, Any], tiny_embedder: Embedder, sent: list[bytes], tmp_path: Path
) -> None:
    limit = 700_000
    settings = ServerSettings(max_items=5, max_waiting_items=8, max_body_bytes=limit, max_cached_bytes=500_000)
    photos: list[Any] = [{"image": noise(tmp_path / f"{number}.png", number)} for number in range(8)]
    texts = [*(f"text {number}" for number in range(20)), "word " * 4000]
    inputs = [*photos, *texts, {"image": noise(tmp_path / "large.png", 9, 700)}]
    with ModelServer(create_app(**models, settings=settings)) as server, Embedder(server.url) as embedder:
        batch = embedder.embed(inputs, on_error="collect")
    assert max(map(len, sent)) <= limit
    assert_close(batch.values[:-1], tiny_embedder.embed(inputs[:-1]))
    (error,) = batch.errors
    assert error.index == len(inputs) - 1
    assert "raise --max-body of `qwen3vl serve`" in error.reason


class SlowServer:
    """Middleware that gives up on requests with many items, as a server does after its time limit."""

    def __init__(self, app: ASGIApp, max_items: int, num_items: list[int]) -> None:
        self._app, self._max_items, self._num_items = app, max_items, num_items

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        num_items = b"".join(message["body"] for message in messages).count(b"number ")
        self._num_items.append(num_items)
        if num_items > self._max_items:
            error = {"message": "the answer took longer than 300 s; send smaller requests", "code": "timeout"}
            await JSONResponse({"error": error}, status_code=503)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


def test_requests_that_take_a_server_too_long_are_halved(models: dict[str, Any], tiny_embedder: Embedder) -> None:
    texts = [f"number {number}" for number in range(11)]
    num_items: list[int] = []
    app = create_app(**models)
    app.add_middleware(SlowServer, max_items=3, num_items=num_items)
    with ModelServer(app) as server, Embedder(server.url) as embedder:
        assert_close(embedder.embed(texts), tiny_embedder.embed(texts))
    assert num_items == [11, 6, 3, 3, 5, 3, 2]


def test_item_that_takes_a_server_too_long_is_an_error(models: dict[str, Any]) -> None:
    num_items: list[int] = []
    app = create_app(**models)
    app.add_middleware(SlowServer, max_items=0, num_items=num_items)
    message = "status 503: the answer took longer than 300 s"
    with ModelServer(app) as server, Embedder(server.url) as embedder, pytest.raises(ServerError, match=message):
        embedder.embed("number 1")
    assert num_items == [1]


def test_file_that_changes_before_it_is_sent(
    server: ModelServer, sent: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, other = noise(tmp_path / "changing.png", 1), noise(tmp_path / "other.png", 2)
    request = Transport.request

    async def change_and_request(transport: Transport, *args: Any) -> Any:
        noise(changing, 3)
        return await request(transport, *args)

    monkeypatch.setattr(Transport, "request", change_and_request)
    with Embedder(server.url) as embedder:
        batch = embedder.embed([changing, other, "a text"], on_error="collect")
    assert batch.ok.tolist() == [False, True, True]
    assert "changed while it was read" in batch.errors[0].reason


def test_stream_is_lazy_and_in_order(server: ModelServer) -> None:
    taken = []

    def inputs() -> Iterator[str]:
        for number in range(100_000):
            taken.append(number)
            yield "" if number == 7 else f"text {number}"

    with Embedder(server.url) as embedder:
        stream = embedder.stream(inputs())
        outputs = list(islice(stream, 70))
        assert [index for index, _ in outputs] == list(range(70))
        assert "empty" in str(outputs[7][1])
        assert len(taken) <= 400
        stream.close()  # type: ignore[attr-defined]
        assert len(list(embedder.stream(["a", "b"]))) == 2


def test_slow_inputs_are_sent_before_a_chunk_is_full(server: ModelServer) -> None:
    seen = threading.Event()

    def inputs() -> Iterator[str]:
        yield "first"
        yield from (f"text {number}" for number in range(60) if not seen.wait(0.02))
        assert seen.wait(60)
        yield "last"

    with Embedder(server.url) as embedder:
        indices = []
        for index, _ in embedder.stream(inputs()):
            seen.set()
            indices.append(index)
    assert indices == list(range(len(indices)))


def test_abandoned_work_is_cancelled_in_the_server(server: ModelServer, busy: GatedForward) -> None:
    texts = [f"text {number}" for number in range(200)]
    with Embedder(server.url) as embedder:

        async def leave() -> None:
            call = asyncio.ensure_future(embedder.aembed(texts))
            await asyncio.to_thread(server.wait_for_items, 200)
            call.cancel()
            await asyncio.wait([call])
            assert call.cancelled()

        asyncio.run(leave())
        server.wait_for_items(0)
        with ThreadPoolExecutor(1) as threads:
            closed = threads.submit(embedder.embed, texts)
            server.wait_for_items(200)
            embedder.close()
            server.wait_for_items(0)
            with pytest.raises(RuntimeError, match="this model was closed"):
                closed.result()
    assert not busy.resume.is_set()


def test_cancelled_task_whose_model_is_closed(server: ModelServer, busy: GatedForward) -> None:
    async def cancel_and_close() -> None:
        embedder = Embedder(server.url)
        call = asyncio.ensure_future(embedder.aembed(["a text"]))
        await asyncio.to_thread(server.wait_for_items, 1)
        call.cancel()
        embedder.close()
        await asyncio.wait([call])
        assert call.cancelled()

    asyncio.run(cancel_and_close())
    assert not busy.resume.is_set()


def test_abandoned_stream_is_cancelled_in_the_server() -> None:
    num_prompts, resume = [0], threading.Event()

    def forward(replica: Replica, pack: Any, *args: Any, **options: Any) -> Any:
        if num_prompts[0] >= 2:
            resume.wait(60)
        num_prompts[0] += len(pack.prompt_indices)
        return replica.execute(pack, *args, **options)

    served = embedder_with(Path("tiny"), stages={"forward": forward}, policy=SERVER_POLICY)
    with served, ModelServer(create_app(embedder=served)) as server, Embedder(server.url) as embedder:

        def inputs() -> Iterator[str]:
            yield "first"
            time.sleep(2 * MAX_CHUNK_DELAY_S)
            yield "second"  # the chunk is sent without further inputs
            wait_until(lambda: num_prompts[0] == 2)
            yield from (f"text {number}" for number in range(1000))

        stream = embedder.stream(inputs())
        try:
            assert next(stream)[0] == 0
            wait_until(lambda: server.waiting_items >= 64)
            stream.close()  # type: ignore[attr-defined]
            server.wait_for_items(0)
            assert not resume.is_set()
        finally:
            resume.set()


def test_model_of_another_server_is_served(server: ModelServer, tiny_embedder: Embedder) -> None:
    with Embedder(server.url) as behind, pytest.raises(ValueError, match="the media policy of the embedder"):
        create_app(embedder=behind)
    with (
        Embedder(server.url, policy=SERVER_POLICY) as behind,
        ModelServer(create_app(embedder=behind)) as gateway,
        Embedder(gateway.url) as embedder,
    ):
        assert embedder.recipe.digest == tiny_embedder.recipe.digest
        inputs: list[Any] = ["a text", Image.new("RGB", (64, 64), "red"), ""]
        remote, local = (model.embed(inputs, on_error="collect") for model in (embedder, tiny_embedder))
        assert_close(remote.values[:2], local.values[:2])
        assert [str(error) for error in remote.errors] == [str(error) for error in local.errors]
        assert "qwen3vl_engine" not in gateway.client.get("/metrics").text


def test_closed_client(server: ModelServer) -> None:
    embedder, reranker = Embedder(server.url), Reranker(server.url)
    recipe = embedder.recipe
    with reranker, embedder:
        assert not embedder.closed
    assert embedder.closed
    embedder.close()
    assert embedder.recipe == recipe
    for call in (lambda: embedder.embed("a"), lambda: reranker.rank("a", ["b"]), lambda: list(embedder.stream(["a"]))):
        with pytest.raises(RuntimeError, match="this model was closed"):
            call()
    with pytest.raises(RuntimeError, match="this model was closed"):
        asyncio.run(embedder.aembed("a"))


def test_engine_is_in_the_server(server: ModelServer) -> None:
    with Embedder(server.url) as embedder:
        assert not hasattr(embedder, "engine")
        with pytest.raises(AttributeError, match=f"{server.url}; its /metrics has the statistics"):
            _ = embedder.engine


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_has_connections_of_its_own(server: ModelServer) -> None:
    with Embedder(server.url) as embedder:
        embedder.embed(["before"])
        shape, child = None, os.fork()
        if child == 0:
            try:
                signal.alarm(60)
                shape = embedder.embed(["in the child"]).shape
            finally:
                os._exit(0 if shape == (1, 128) else 3)
        assert embedder.embed(["in the parent"]).shape == (1, 128)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_api_key(models: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QWEN3VL_API_KEY", raising=False)
    with ModelServer(create_app(**models, settings=ServerSettings(api_keys=(KEY, "another")))) as server:
        for key in (None, "wrong"):
            with pytest.raises(
                ServerError, match=r"refuses the API key.*pass api_key, or set QWEN3VL_API_KEY"
            ) as caught:
                Embedder(server.url, api_key=key)
            assert caught.value.status == 401
        with Embedder(server.url, api_key=KEY) as embedder:
            assert embedder.embed(["a"]).shape == (1, 128)
            assert KEY not in repr(embedder.backend._settings)  # type: ignore[attr-defined]
        monkeypatch.setenv("QWEN3VL_API_KEY", f"{KEY} another")
        with Reranker(server.url) as reranker:
            assert reranker.score("a", ["b"]).shape == (1,)


@pytest.mark.parametrize("key", ["a key", f"{KEY}\n", "ключ"])
def test_key_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match=r"api_key has spaces, line breaks.*strip") as caught:
        Embedder("http://127.0.0.1:9", api_key=key)
    assert key.strip() not in str(caught.value)


def test_settings_of_the_other_kind_are_refused(server: ModelServer) -> None:
    with pytest.raises(
        ValueError, match=r"device, dtype: for a model that runs in this process, and http://.*leave it out"
    ):
        Embedder(server.url, device="cuda", dtype="bfloat16")
    with pytest.raises(ValueError, match="revision"):
        Reranker(server.url, revision="main")
    with pytest.raises(ValueError, match=r"api_key, timeout_s: for a server, and tiny runs in this process"):
        Embedder("tiny", api_key="key", timeout_s=3)
    with pytest.raises(ValueError, match=r"max_length is 512, and that of the server is 8192"):
        Embedder(server.url, max_length=512)
    with pytest.raises(ValueError, match=r"dimensions is 300; it must be between 1 and 128"):
        Embedder(server.url, dimensions=300)
    with pytest.raises(ValueError, match="timeout_s is 0"):
        Embedder(server.url, timeout_s=0)
    with pytest.raises(TypeError, match="unknown settings: colour"):
        Embedder(server.url, colour="red")  # type: ignore[call-arg]
    Embedder(server.url, device="auto", dtype="auto", max_length=8192, fps=1, max_pixels=None).close()
    Reranker(server.url, max_length=10240).close()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("http://", "is no URL of a server"),
        ("http://user:password@host", "'host' is no URL of a server"),
        ("http://host/?key=1", "is no URL of a server"),
        ("http://host:port", "Port could not be cast"),
        (["http://host", "tiny"], "'tiny' is no URL of a server"),
        (["tiny", "tiny"], "is no model"),
        ("http://127.0.0.1:9,", "'' is no URL of a server"),
    ],
)
def test_names_that_are_no_urls_of_servers(model: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Embedder(model)


def test_what_is_no_server_of_this_package(server: ModelServer, models: dict[str, Any]) -> None:
    with pytest.raises(ServerError, match=r"GET /v1/qwen3vl/models is answered with status 404.*without /v1|answers"):
        Embedder(f"{server.url}/v1")
    with pytest.raises(ServerError, match=r"cannot be reached.*\(1 attempts\). Check the address"):
        Embedder("http://127.0.0.1:9", max_retries=0)
    with ModelServer(create_app(reranker=models["reranker"])) as other:
        with pytest.raises(ModelError, match=r"has no embedding model; start it with `qwen3vl serve --embedder MODEL`"):
            Embedder(other.url)
        with pytest.raises(ModelError, match="has no embedding model"):
            Embedder([server.url, other.url])


def test_servers_of_one_object_have_one_recipe(server: ModelServer, golden_server: ModelServer) -> None:
    with pytest.raises(RecipeError, match=r"has another model or other settings than .*: weights is '.*max_pixels is"):
        Embedder(f"{server.url}, {golden_server.url}")


def test_busy_server_is_asked_again(models: dict[str, Any], tiny_embedder: Embedder, busy: GatedForward) -> None:
    settings = ServerSettings(max_items=64, max_waiting_items=64)
    texts = [f"text {number}" for number in range(300)]
    with (
        ModelServer(create_app(**models, settings=settings)) as server,
        Embedder(server.url, max_retries=0) as embedder,
        ThreadPoolExecutor(1) as threads,
    ):
        call = threads.submit(embedder.embed, texts)
        wait_until(lambda: 'status="429"' in server.client.get("/metrics").text)
        busy.resume.set()
        assert_close(call.result(), tiny_embedder.embed(texts))


def test_time_limit_of_a_request(server: ModelServer, busy: GatedForward) -> None:
    with Embedder(server.url, timeout_s=3) as embedder:
        with pytest.raises(ServerError, match=r"no answer within 3 s \(timeout_s\)"):
            embedder.embed(["a text"])
        server.wait_for_items(0)
        busy.resume.set()


def test_time_limit_of_a_server_that_wants_to_be_asked_later() -> None:
    with Server() as server:
        server.pages["/qwen3vl/models"] = (503, {"Retry-After": "3600"}, b"")
        with pytest.raises(ServerError, match=r"no answer within 1 s \(timeout_s\); the last attempt.*status 503"):
            Embedder(f"http://127.0.0.1:{server.port}", timeout_s=1)


def test_answer_that_cannot_be_decoded() -> None:
    with Server() as server:
        server.pages["/qwen3vl/models"] = (200, {"Content-Encoding": "gzip"}, b"not compressed")
        with pytest.raises(ServerError, match=r"cannot be reached: .*\(1 attempts\)"):
            Embedder(f"http://127.0.0.1:{server.port}", max_retries=0)

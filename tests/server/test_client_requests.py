"""What a client sends: contents once, no paths, in bounded requests, and inputs of streams before all are there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen3vl_server import ServerSettings, create_app
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from qwen3vl import Document, Embedder, Report, Reranker, ServerError, ingest, open_store
from qwen3vl.client import requests
from qwen3vl.client.transport import Transport
from qwen3vl.wire import encode_request
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer


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

    def __init__(self, app: ASGIApp, max_items: int, num_items: list[int], status: int) -> None:
        self._app, self._max_items, self._num_items, self._status = app, max_items, num_items, status

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
            await JSONResponse({"error": error}, status_code=self._status)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)


@pytest.mark.parametrize("status", [422, 503])  # 503 of a server of an earlier version
def test_requests_that_take_a_server_too_long_are_halved(
    models: dict[str, Any], tiny_embedder: Embedder, status: int
) -> None:
    texts = [f"number {number}" for number in range(11)]
    num_items: list[int] = []
    app = create_app(**models)
    app.add_middleware(SlowServer, max_items=3, num_items=num_items, status=status)
    with ModelServer(app) as server, Embedder(server.url) as embedder:
        assert_close(embedder.embed(texts), tiny_embedder.embed(texts))
    assert num_items == [11, 6, 3, 3, 5, 3, 2]


def test_item_that_takes_a_server_too_long_is_an_error(models: dict[str, Any]) -> None:
    num_items: list[int] = []
    app = create_app(**models)
    app.add_middleware(SlowServer, max_items=0, num_items=num_items, status=422)
    message = "status 422: the answer took longer than 300 s"
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


def test_documents_of_a_stream_that_pauses_are_sent_and_written(server: ModelServer) -> None:
    written = threading.Event()

    def documents() -> Iterator[Document]:
        yield from (Document(f"{number}", "text", text=f"text {number}") for number in range(70))
        assert written.wait(60), "nothing is written before the next document comes"

    def progress(report: Report) -> None:
        if report.added == 70:
            written.set()

    store = open_store(":memory:")
    with Embedder(server.url) as embedder:
        assert ingest(documents(), embedder, store, progress=progress).added == 70
    store.close()


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

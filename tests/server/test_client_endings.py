"""Calls of a client that end early: cancelled, closed, forked, out of time, or refused by a busy server."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from qwen3vl import Embedder, Reranker, ServerError
from qwen3vl.client import transport
from qwen3vl.client.chunks import MAX_CHUNK_DELAY_S
from qwen3vl.client.transport import Transport
from qwen3vl.engine.replica import Replica
from qwen3vl.settings import ClientSettings
from tests.support.engines import GatedForward, assert_close, embedder_with
from tests.support.http_server import Server
from tests.support.model_server import ModelServer, wait_until


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


class RefusingServer:
    """Middleware that answers the second request only: it wants no more for an hour. The first waits for `resume`."""

    def __init__(self, app: ASGIApp, status: int, posts: list[str], resume: threading.Event) -> None:
        self._app, self._status, self._posts, self._resume = app, status, posts, resume

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self._posts.append(scope["path"])
            if len(self._posts) == 1:
                await asyncio.to_thread(self._resume.wait, 60)
            elif len(self._posts) == 2:
                headers = {"Retry-After": "3600"}
                await JSONResponse({"error": {"message": "not now"}}, self._status, headers)(scope, receive, send)
                return
        await self._app(scope, receive, send)


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_wants_no_requests_gets_none_when_it_answers_an_earlier_one(
    models: dict[str, Any], status: int
) -> None:
    posts: list[str] = []
    resume = threading.Event()
    app = create_app(**models)
    app.add_middleware(RefusingServer, status=status, posts=posts, resume=resume)
    with (
        ModelServer(app) as server,
        Embedder(server.url, timeout_s=3) as embedder,
        ThreadPoolExecutor(2) as threads,
    ):
        first = threads.submit(embedder.embed, ["first"])
        wait_until(lambda: posts)
        second = threads.submit(embedder.embed, ["second"])
        (known,) = embedder.backend._transport._connections.servers.servers  # type: ignore[attr-defined]
        wait_until(lambda: known.paused)
        resume.set()
        assert first.result().shape == (1, 128)
        with pytest.raises(ServerError, match=r"no answer within 3 s \(timeout_s\)"):
            embedder.embed(["third"])
        with pytest.raises(ServerError, match=rf"no answer within 3 s \(timeout_s\).*status {status}: not now"):
            second.result()
    assert len(posts) == 2


@pytest.mark.parametrize("status", [429, 503])
def test_pause_that_a_server_asks_for_has_a_limit(
    models: dict[str, Any], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_RETRY_AFTER_S", 1.0)
    posts = ["an earlier request"]
    app = create_app(**models)
    app.add_middleware(RefusingServer, status=status, posts=posts, resume=threading.Event())
    with ModelServer(app) as server, Embedder(server.url, timeout_s=120) as embedder:
        assert embedder.embed(["refused at first"]).shape == (1, 128)
    assert len(posts) == 3


def test_time_limit_of_a_request(server: ModelServer, busy: GatedForward) -> None:
    with Embedder(server.url, timeout_s=3) as embedder:
        with pytest.raises(ServerError, match=r"no answer within 3 s \(timeout_s\)"):
            embedder.embed(["a text"])
        server.wait_for_items(0)
        busy.resume.set()


def test_time_limit_begins_when_a_request_has_its_turn() -> None:
    """Not while the object's other requests have all the connections."""
    client = Transport(["http://127.0.0.1:9"], ClientSettings(timeout_s=0.05, max_retries=0))

    async def take_all_connections() -> None:
        for _ in range(transport.MAX_REQUESTS):
            await client._connect().slots.acquire()

    async def give_one_back() -> None:
        client._connect().slots.release()

    client.submit(take_all_connections).result()
    waiting = client.submit(client.request, "/qwen3vl/embed", b"{}", "application/json")
    with pytest.raises(TimeoutError):
        waiting.result(0.5)
    client.submit(give_one_back).result()
    with pytest.raises(ServerError):
        waiting.result()
    client.close()


@pytest.mark.parametrize("retry_after", ["3600", formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"])
def test_time_limit_of_a_server_that_wants_to_be_asked_later(retry_after: str) -> None:
    with Server() as server:
        server.pages["/qwen3vl/models"] = (503, {"Retry-After": retry_after}, b"")
        with pytest.raises(ServerError, match=r"no answer within 1 s \(timeout_s\); the last attempt.*status 503"):
            Embedder(f"http://127.0.0.1:{server.port}", timeout_s=1)
        assert server.requested_paths == ["/qwen3vl/models"]


def test_answer_that_cannot_be_decoded() -> None:
    with Server() as server:
        server.pages["/qwen3vl/models"] = (200, {"Content-Encoding": "gzip"}, b"not compressed")
        with pytest.raises(ServerError, match=r"cannot be reached: .*\(1 attempts\)"):
            Embedder(f"http://127.0.0.1:{server.port}", max_retries=0)

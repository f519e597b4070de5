"""Clients of servers that are killed, are started again, and come back with another model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Embedder, Loader, RecipeError, Reranker, ServerError, ingest, open_store
from tests.server.test_serve import needs_entry_point
from tests.support.engines import assert_close
from tests.support.server_process import ServerProcess

pytestmark = [needs_entry_point, pytest.mark.slow]


@pytest.fixture(scope="module")
def servers() -> Iterator[list[ServerProcess]]:
    with ServerProcess() as first, ServerProcess() as second:
        yield [first, second]


@pytest.fixture(autouse=True)
def _ready(servers: list[ServerProcess]) -> None:
    """Begin with both servers as they were started first."""
    for server in servers:
        server.restore()
    for server in servers:
        server.wait_until_ready()


def urls(servers: list[ServerProcess]) -> list[str]:
    return [server.url for server in servers]


def test_call_goes_on_when_one_of_two_servers_is_killed(
    servers: list[ServerProcess], tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    texts = [f"a red circle, number {number}" for number in range(600)]
    with Embedder(urls(servers)) as embedder, Reranker(",".join(urls(servers))) as reranker:
        vectors = {}
        for index, vector in embedder.stream(texts):
            vectors[index] = vector
            if index == 100:
                servers[0].kill()
        assert_close(np.array([vectors[index] for index in range(600)]), tiny_embedder.embed(texts))
        assert_close(reranker.score("a circle", texts[:70]), tiny_reranker.score("a circle", texts[:70]))
        servers[0].start()
        servers[0].wait_until_ready()
        servers[1].kill()
        assert_close(asyncio.run(embedder.aembed(texts[:5])), tiny_embedder.embed(texts[:5]))


def test_object_can_be_made_while_one_of_two_servers_is_down(servers: list[ServerProcess]) -> None:
    servers[1].kill()
    with Embedder(urls(servers)) as embedder:
        assert embedder.embed(["a text"] * 200).shape == (200, 128)
    servers[0].kill()
    with pytest.raises(ServerError, match=r"cannot be reached.*nor can the others of .*\(4 attempts\)"):
        Embedder(urls(servers), max_retries=1)


def test_calls_wait_for_a_server_that_is_started_again(servers: list[ServerProcess], tiny_embedder: Embedder) -> None:
    texts = [f"text {number}" for number in range(300)]
    with Embedder(servers[0].url, max_retries=40) as embedder, ThreadPoolExecutor(4) as threads:
        servers[0].kill()
        calls = [threads.submit(embedder.embed, texts) for _ in range(4)]
        servers[0].start()
        for call in calls:
            assert_close(call.result(), tiny_embedder.embed(texts))


def test_server_that_stays_away_is_an_error(servers: list[ServerProcess]) -> None:
    with Embedder(servers[0].url, max_retries=2) as embedder:
        servers[0].kill()
        with pytest.raises(ServerError, match=r"cannot be reached: .* \(3 attempts\). Check the address"):
            embedder.embed(["a text"])
        with pytest.raises(ServerError, match=r"\(3 attempts\)"):
            asyncio.run(embedder.aembed(["a text"]))


def test_server_that_comes_back_with_another_model(servers: list[ServerProcess], checkpoints: Path) -> None:
    with Embedder(urls(servers), max_retries=40) as embedder:
        for server in servers:
            server.kill()
        servers[0].start("--embedder", str(checkpoints / "embedding"))
        with pytest.raises(RecipeError, match=f"{servers[0].url} answers.*another recipe.*weights is .*after changes"):
            embedder.embed(["a text"])


def test_ingestion_loses_nothing_when_its_server_is_killed(
    servers: list[ServerProcess], tiny_embedder: Embedder, library_folder: Path
) -> None:
    documents = list(Loader().load([library_folder]))
    expected: Any = ingest(documents, tiny_embedder, open_store(":memory:"))
    store = open_store(":memory:")
    restarted = threading.Event()

    def restart(report: Any) -> None:
        if report.seen and not restarted.is_set():
            restarted.set()
            servers[0].kill()
            servers[0].start()

    with Embedder(servers[0].url, max_retries=40) as embedder:
        report = ingest(documents, embedder, store, progress=restart)
        assert restarted.is_set()
        assert (report.added, report.failed) == (expected.added, expected.failed)
        assert store.count() == expected.added
        assert ingest(documents, embedder, store).added == 0
        servers[0].kill()
        with Embedder(servers[1].url) as other:  # what another server embeds is the same point
            assert ingest(documents, other, store).added == 0

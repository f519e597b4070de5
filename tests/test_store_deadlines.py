"""Servers that accept connections and never answer: every call to a store ends, and says which limit passed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import Any

import chromadb
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qwen3vl_chroma import AsyncChromaStore, ChromaStore
from qwen3vl_qdrant import AsyncQdrantStore, QdrantStore

from qwen3vl import AsyncStore, StoreError, open_store
from qwen3vl.stores import Retry
from tests.support.fake_embedder import fake_recipe, fake_vector
from tests.support.proxy import Proxy
from tests.support.silent_server import silent_server

TEST_LIMIT_S = 60
"""A call that takes longer hangs."""
TWO_ATTEMPTS = Retry(attempts=2, initial_delay_s=0.01)
OLD_VERSION_WARNING = "ignore:Failed to obtain server version"


@pytest.fixture
def url() -> Iterator[str]:
    with silent_server() as port:
        yield f"http://127.0.0.1:{port}"


def within_limit(call: Callable[[], object]) -> None:
    """Run a blocking call in a thread that does not keep the process alive, so that a hanging one fails the test."""
    result: Future[object] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except Exception as error:
            result.set_exception(error)

    Thread(target=run, daemon=True).start()
    result.result(TEST_LIMIT_S)


def test_opening_a_chroma_server_that_never_answers_is_an_error_that_names_the_limit(url: str) -> None:
    with pytest.raises(StoreError, match=rf"{url} did not answer within 0\.5 s.*timeout_s") as caught:
        within_limit(lambda: open_store(f"chroma:{url}", timeout_s=0.5))
    assert caught.value.transient


@pytest.mark.filterwarnings(OLD_VERSION_WARNING)
def test_qdrant_server_that_never_answers_is_an_error_that_names_the_limit(url: str) -> None:
    store = open_store(url, timeout_s=0.5)  # rounded up, because Qdrant's limits are whole seconds
    store.core.retry = TWO_ATTEMPTS
    with pytest.raises(StoreError, match=rf"{url} did not answer within 1 s.*timeout_s.*2 attempts"):
        within_limit(store.count)


@pytest.mark.parametrize("call", ["acount", "arecipe", "acreate", "asearch"])
@pytest.mark.parametrize("database", ["qdrant", "chroma"])
async def test_calls_of_async_stores_end(database: str, call: str, url: str, chroma_port: int) -> None:
    all_arguments: dict[str, list[Any]] = {"acreate": [fake_recipe()], "asearch": [fake_vector("a star")]}
    arguments = all_arguments.get(call, [])
    port = int(url.rpartition(":")[2])
    stalling = False
    store: AsyncStore
    with Proxy(chroma_port, lambda *_: "stall" if stalling else "") as proxy:
        if database == "qdrant":
            client = AsyncQdrantClient("127.0.0.1", port=port, timeout=1, check_compatibility=False)
            store = AsyncQdrantStore(client, retry=TWO_ATTEMPTS)
        else:
            chroma = await chromadb.AsyncHttpClient("127.0.0.1", proxy.port)
            store = AsyncChromaStore(chroma, "deadlines", retry=TWO_ATTEMPTS, timeout_s=0.5)
        stalling = True
        with pytest.raises(StoreError, match=r"did not answer within (1|0\.5) s.*timeout.*2 attempts"):
            await asyncio.wait_for(getattr(store, call)(*arguments), TEST_LIMIT_S)


def test_calls_of_a_chroma_store_end(chroma_port: int) -> None:
    stalling = False
    with Proxy(chroma_port, lambda *_: "stall" if stalling else "") as proxy:
        store = ChromaStore(chromadb.HttpClient("127.0.0.1", proxy.port), retry=TWO_ATTEMPTS, timeout_s=0.5)
        stalling = True
        with pytest.raises(StoreError, match=r"did not answer within 0\.5 s.*timeout_s"):
            within_limit(store.count)


def test_timeout_of_the_client_itself_is_named(url: str) -> None:
    client = QdrantClient(url=url, timeout=1, check_compatibility=False)
    with pytest.raises(StoreError, match=r"within 1 s.*timeout of QdrantClient"):
        within_limit(QdrantStore(client, retry=TWO_ATTEMPTS).count)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_timeout_that_is_not_positive_is_an_error(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="must be more than 0"):
        open_store(":memory:", timeout_s=timeout_s)
    with pytest.raises(ValueError, match="must be more than 0"):
        ChromaStore(chromadb.EphemeralClient(), timeout_s=timeout_s)

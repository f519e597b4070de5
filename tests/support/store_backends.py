"""Every database that the tests run against: embedded, in process, and servers of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import chromadb
import httpx
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient
from qwen3vl_chroma import AsyncChromaStore, ChromaStore
from qwen3vl_qdrant import AsyncQdrantStore, QdrantEdgeStore, QdrantStore, async_edge_client, edge_client

from qwen3vl import AsyncStore, Store

OpenStore = Callable[..., Store]
"""Creates a store over the backend's client, for a collection of the test's own."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str) -> None:
    """Wait until a server answers, half a minute at most."""
    for _ in range(300):
        try:
            httpx.get(url).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing answers at {url}")


@contextmanager
def chroma_server(folder: Path, port: int | None = None) -> Iterator[int]:
    """A `chroma run` process; yields its port."""
    port = port or free_port()
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/api/v2/heartbeat")
        yield port
    finally:
        process.kill()
        process.wait()


@cache
def qdrant_server() -> str:
    """The URL of a Qdrant server: QDRANT_URL, or a container; skips the test if there is neither."""
    if url := os.environ.get("QDRANT_URL"):
        return url
    try:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer("qdrant/qdrant").with_exposed_ports(6333)
        container.start()
    except Exception as error:  # no Docker, no image, no permission
        pytest.skip(f"no Qdrant server: QDRANT_URL is not set and no container starts ({type(error).__name__})")
    url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(6333)}"
    wait_until_ready(f"{url}/readyz")
    return url


def open_client(name: str, folder: Path, chroma_port: Callable[[], int]) -> Any:
    """Open the client of a backend; for "qdrant-edge", whose store opens its own, return the folder."""
    match name:
        case "qdrant-memory":
            return QdrantClient(":memory:")
        case "qdrant-folder":
            return QdrantClient(path=str(folder / "qdrant"))
        case "qdrant-edge":
            return folder / "edge"
        case "qdrant-edge-client":
            return edge_client(folder / "edge")
        case "qdrant-server":
            return QdrantClient(url=qdrant_server())
        case "chroma-memory":
            return chromadb.EphemeralClient()
        case "chroma-folder":
            return chromadb.PersistentClient(str(folder / "chroma"))
    return chromadb.HttpClient("127.0.0.1", chroma_port())


@contextmanager
def open_backend(name: str, folder: Path, chroma_port: Callable[[], int]) -> Iterator[OpenStore]:
    """Open the client of a backend; yields a function that creates stores over it."""
    client = open_client(name, folder, chroma_port)
    store_class: Any = QdrantStore if name.startswith("qdrant") else ChromaStore
    if name == "qdrant-edge":
        store_class = QdrantEdgeStore
    collection = f"test-{uuid4().hex}"
    stores: list[Store] = []

    def open_store(**options: Any) -> Store:
        stores.append(store_class(client, options.pop("collection", collection), **options))
        return stores[-1]

    yield open_store
    if name == "qdrant-edge":
        for store in stores:
            store.close()
    elif name.startswith("qdrant"):
        client.close()


async def open_async_store(name: str, folder: Path, chroma_port: Callable[[], int]) -> AsyncStore:
    """Open a store with an asynchronous client: "qdrant" (in memory), "qdrant-edge", "qdrant-server" or "chroma"."""
    if name == "qdrant":
        return AsyncQdrantStore(AsyncQdrantClient(":memory:"))
    if name == "qdrant-edge":
        return AsyncQdrantStore(async_edge_client(folder))
    if name == "qdrant-server":
        return AsyncQdrantStore(AsyncQdrantClient(url=qdrant_server()), f"test-{uuid4().hex}")
    client = await chromadb.AsyncHttpClient("127.0.0.1", chroma_port())
    return AsyncChromaStore(client, f"test-{uuid4().hex}")

"""Clients of qdrant-client over a folder of Qdrant Edge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.async_client_base import AsyncQdrantBase

from qwen3vl.errors import StoreError
from qwen3vl_qdrant.edge.backend import EdgeBackend
from qwen3vl_qdrant.embedded import is_local_mode


class _NoServer:
    """Errors for what a `QdrantClient` has of its connection to a server."""

    @property
    def http(self) -> Any:
        """Raise `NotImplementedError`: there is no REST interface."""
        raise _no_server("http")

    @property
    def grpc_points(self) -> Any:
        """Raise `NotImplementedError`: there is no gRPC interface."""
        raise _no_server("grpc_points")

    @property
    def grpc_collections(self) -> Any:
        """Raise `NotImplementedError`: there is no gRPC interface."""
        raise _no_server("grpc_collections")


def _no_server(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"a folder has no client.{name}, because it is opened in this process, without a server: use the client's own "
        "methods, as client.query_points, or a Qdrant server, QdrantClient(url=...)"
    )


class EdgeClient(_NoServer, QdrantClient):
    """A `QdrantClient` whose collections are in a folder, in Qdrant's own engine in this process.

    Args:
        folder: The folder; it is created if it does not exist.

    Attributes:
        backend: What implements its methods.

    Raises:
        StoreError: Another process has the folder open, or it cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.backend = EdgeBackend(Path(folder))
        # A QdrantClient makes its backend itself: one in memory, which is replaced.
        super().__init__(":memory:")
        self._client.close()
        self._client = self.backend
        self._init_options = {"folder": str(folder)}

    def build_index(self, collection_name: str, progress: Callable[[float], None] | None = None) -> bool:
        """Index new points and free the space of deleted ones, if there are many of either. Other calls wait meanwhile.

        Args:
            collection_name: Name of the collection.
            progress: Called several times a second with the seconds that have passed.

        Returns:
            Whether there were, so that the index was built.
        """
        return self.backend.build_index(collection_name, progress)

    def __enter__(self) -> Self:
        """Return this object, which is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client."""
        self.close()

    def __del__(self) -> None:
        """Do nothing. A QdrantClient would close its backend here, which a store may still use."""


class AsyncEdgeClient(_NoServer, AsyncQdrantClient):
    """An `AsyncQdrantClient` whose collections are in a folder. Calls run in threads.

    Args:
        folder: The folder; it is created if it does not exist.

    Attributes:
        backend: What implements its methods; they are called in threads.

    Raises:
        StoreError: Another process has the folder open, or it cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.backend = EdgeBackend(Path(folder))
        super().__init__(":memory:")
        self._client = _AsyncEdgeBackend(self.backend)
        self._init_options = {"folder": str(folder)}

    async def build_index(self, collection_name: str, progress: Callable[[float], None] | None = None) -> bool:
        """Index new points; see `EdgeClient.build_index`.

        Args:
            collection_name: Name of the collection.
            progress: Called in the event loop, several times a second, with the seconds that have passed.

        Returns:
            As `EdgeClient.build_index` returns.
        """
        loop = asyncio.get_running_loop()

        def call_in_loop(seconds: float) -> None:
            if progress is not None:
                loop.call_soon_threadsafe(progress, seconds)

        return await asyncio.to_thread(self.backend.build_index, collection_name, call_in_loop)

    async def __aenter__(self) -> Self:
        """Return this object, which is closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the client."""
        await self.close()


class _AsyncEdgeBackend(AsyncQdrantBase):
    """The methods of an `AsyncQdrantClient`, each of which calls that of an `EdgeBackend`, in a thread."""

    def __init__(self, backend: EdgeBackend) -> None:
        super().__init__()
        self.backend = backend


def _in_thread(name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
    async def method(self: _AsyncEdgeBackend, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(getattr(self.backend, name), *args, **kwargs)

    method.__name__ = name
    return method


def _at_once(name: str) -> Callable[..., Any]:
    def method(self: _AsyncEdgeBackend, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.backend, name)(*args, **kwargs)

    method.__name__ = name
    return method


for _name, _method in vars(AsyncQdrantBase).items():
    if not _name.startswith("_"):
        # upload_points and upload_collection are ordinary functions in AsyncQdrantClient as well.
        setattr(_AsyncEdgeBackend, _name, (_in_thread if asyncio.iscoroutinefunction(_method) else _at_once)(_name))


def edge_client(folder: str | Path) -> EdgeClient:
    """Open a folder as a `QdrantClient`, for LangChain's and LlamaIndex's stores and for scripts, without a server.

    The collections, their index and their quantization are those of a `QdrantEdgeStore`. Stores and clients of one
    process share the folder; it is closed with the last of them.

    Args:
        folder: The folder; it is created if it does not exist.

    Returns:
        The client: close it, or use it in a `with` block. Methods and arguments that only a server has raise
        `NotImplementedError`.

    Raises:
        StoreError: Another process has the folder open, it cannot be read, or qdrant-client's local mode has made it.

    Example:
        ```python
        with edge_client("library") as client:
            print(client.count("qwen3vl"))
        ```
    """
    _check_engine(folder)
    return EdgeClient(folder)


def async_edge_client(folder: str | Path) -> AsyncEdgeClient:
    """Open a folder as an `AsyncQdrantClient`, whose calls run in threads; see `edge_client`.

    Args:
        folder: As for `edge_client`.

    Returns:
        The client: close it, or use it in an `async with` block.

    Raises:
        StoreError: As for `edge_client`.

    Example:
        ```python
        async with async_edge_client("library") as client:
            print(await client.count("qwen3vl"))
        ```
    """
    _check_engine(folder)
    return AsyncEdgeClient(folder)


def _check_engine(folder: str | Path) -> None:
    if is_local_mode(Path(folder)):
        raise StoreError(
            f"{folder} was made by qdrant-client's local mode: open it with QdrantClient(path=...), or copy it into a "
            f"new folder with `qwen3vl copy {folder} NEW`"
        )

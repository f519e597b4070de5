"""`ChromaStore` and `AsyncChromaStore`: one Chroma collection as a `Store` or an `AsyncStore`."""

from __future__ import annotations

from typing import Any, cast

import chromadb
from chromadb.api import AsyncClientAPI, ClientAPI

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.errors import StoreError
from qwen3vl.stores import AsyncStore, Retry, Store, open_client
from qwen3vl.stores.failures import DEFAULT_TIMEOUT_S
from qwen3vl_chroma.clients import open_folder, open_server
from qwen3vl_chroma.core import ChromaCore


class ChromaStore(Store):
    """A Chroma collection in memory, in a folder, or on a server.

    Args:
        client: An `EphemeralClient`, `PersistentClient` or `HttpClient`.
        collection: Name of the collection.
        tenant: Name of the tenant whose points are read and written; None uses all points. Points of other tenants
            are never found, counted, scanned or deleted.
        retry: How often failed requests are repeated, and after which delays; None is `Retry()`.
        timeout_s: Seconds after which a request of an `HttpClient` that has no timeout of its own fails: limits
            connecting, and each read and write.

    Raises:
        TypeError: The client is asynchronous.
        ValueError: `timeout_s` is not positive.

    Example:
        ```python
        store = ChromaStore(chromadb.PersistentClient("library.chroma"), "photos")
        ingest(Loader().load(["photos"]), Embedder(), store)
        ```
    """

    core: ChromaCore

    def __init__(
        self,
        client: ClientAPI,
        collection: str = "qwen3vl",
        *,
        tenant: str | None = None,
        retry: Retry | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(ChromaCore(client, collection, tenant, retry, timeout_s))

    @property
    def client(self) -> ClientAPI:
        """The Chroma client."""
        return cast("ClientAPI", self.core.client)


class AsyncChromaStore(AsyncStore):
    """A Chroma collection behind an asynchronous client.

    Args:
        client: An `AsyncHttpClient`. To limit the time until it is connected, create it within `asyncio.timeout`.
        collection: As for `ChromaStore`.
        tenant: As for `ChromaStore`.
        retry: As for `ChromaStore`.
        timeout_s: Seconds after which a request fails.

    Raises:
        TypeError: The client is blocking.
        ValueError: `timeout_s` is not positive.

    Example:
        ```python
        store = AsyncChromaStore(await chromadb.AsyncHttpClient("localhost", 8000), "photos")
        await aingest(Loader().load(["photos"]), Embedder(), store)
        ```
    """

    core: ChromaCore

    def __init__(
        self,
        client: AsyncClientAPI,
        collection: str = "qwen3vl",
        *,
        tenant: str | None = None,
        retry: Retry | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(ChromaCore(client, collection, tenant, retry, timeout_s))

    @property
    def client(self) -> AsyncClientAPI:
        """The Chroma client."""
        return cast("AsyncClientAPI", self.core.client)


@renamed_arguments(place="location")
def open_store(
    location: str, collection: str = "qwen3vl", *, timeout_s: float = DEFAULT_TIMEOUT_S, layout: Any = None
) -> ChromaStore:
    """Open a store.

    A folder that cannot be written can be searched. A server gets the key in the environment variable CHROMA_API_KEY,
    if there is one, in the header `X-Chroma-Token`.

    Args:
        location: A folder (created if it does not exist), a server's http(s) URL, or `":memory:"`.
        collection: Name of the collection.
        timeout_s: Seconds after which a request to a server fails: limits connecting, and each read and write. The
            requests that open the store are limited too.
        layout: Only None: Chroma has no layouts.

    Returns:
        The store.

    Raises:
        StoreError: The store cannot be opened, or there is a layout.
    """
    if layout is not None:
        raise StoreError(f"Chroma stores full vectors only: leave the layout out to open {location}, or use Qdrant")
    read_only = False

    def folder_client(folder: str) -> ClientAPI:
        nonlocal read_only
        client, read_only = open_folder(folder)
        return client

    client = open_client(
        location,
        memory=chromadb.EphemeralClient,
        server=lambda url: open_server(url, timeout_s),
        folder=folder_client,
    )
    store = ChromaStore(client, collection, timeout_s=timeout_s)
    store.core.read_only_folder = location if read_only else ""
    return store

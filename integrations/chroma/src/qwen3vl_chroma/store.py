"""`ChromaStore` and `AsyncChromaStore`: one Chroma collection as a `Store` or an `AsyncStore`."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlsplit

import chromadb
from chromadb.api import AsyncClientAPI, ClientAPI

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.stores import AsyncStore, Retry, Store, open_client
from qwen3vl_chroma.core import ChromaCore


class ChromaStore(Store):
    """A Chroma collection in memory, in a folder, or on a server.

    Args:
        client: An `EphemeralClient`, `PersistentClient` or `HttpClient`. An `HttpClient` without a timeout gets one
            of 60 seconds.
        collection: Name of the collection.
        tenant: Name of the tenant whose points are read and written; None uses all points. Points of other tenants
            are never found, counted, scanned or deleted.
        retry: How often failed requests are repeated, and after which delays; None is `Retry()`.

    Raises:
        TypeError: The client is asynchronous.

    Example:
        ```python
        store = ChromaStore(chromadb.PersistentClient("library.chroma"), "photos")
        ingest(Loader().load(["photos"]), Embedder(), store)
        ```
    """

    core: ChromaCore

    def __init__(
        self, client: ClientAPI, collection: str = "qwen3vl", *, tenant: str | None = None, retry: Retry | None = None
    ) -> None:
        super().__init__(ChromaCore(client, collection, tenant, retry))

    @property
    def client(self) -> ClientAPI:
        """The Chroma client."""
        return cast("ClientAPI", self.core.client)


class AsyncChromaStore(AsyncStore):
    """A Chroma collection behind an asynchronous client.

    Args:
        client: An `AsyncHttpClient`. It has no timeout: wrap calls in `asyncio.timeout`.
        collection: As for `ChromaStore`.
        tenant: As for `ChromaStore`.
        retry: As for `ChromaStore`.

    Raises:
        TypeError: The client is blocking.

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
    ) -> None:
        super().__init__(ChromaCore(client, collection, tenant, retry))

    @property
    def client(self) -> AsyncClientAPI:
        """The Chroma client."""
        return cast("AsyncClientAPI", self.core.client)


@renamed_arguments(place="location")
def open_store(location: str, collection: str = "qwen3vl") -> ChromaStore:
    """Open a store.

    Args:
        location: A folder (created if it does not exist), a server's http(s) URL, or `":memory:"`.
        collection: Name of the collection.

    Returns:
        The store.

    Raises:
        StoreError: The store cannot be opened.
    """
    client = open_client(
        location, memory=chromadb.EphemeralClient, server=_open_server, folder=chromadb.PersistentClient
    )
    return ChromaStore(client, collection)


def _open_server(url: str) -> ClientAPI:
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    return chromadb.HttpClient(parts.hostname or "", parts.port or (443 if secure else 80), ssl=secure)

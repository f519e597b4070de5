"""`QdrantStore` and `AsyncQdrantStore`: one Qdrant collection as a `Store` or an `AsyncStore`."""

from __future__ import annotations

from typing import cast

from qdrant_client import AsyncQdrantClient, QdrantClient

from qwen3vl.stores import AsyncStore, Retry, Store
from qwen3vl_qdrant.core import QdrantCore
from qwen3vl_qdrant.layout import Layout


class QdrantStore(Store):
    """A Qdrant collection on a server, in the cloud, embedded in a folder, or in memory.

    Args:
        client: A blocking client.
        collection: Name of the collection.
        layout: What is stored beside the full vectors, for faster search in less memory; None means that of an existing
            collection, or full vectors only for a new one (with `tenants=True` if there is a tenant).
        tenant: Name of the tenant whose points are read and written; None uses all points. Points of other tenants
            are never found, counted, scanned or deleted.
        retry: How often failed requests are repeated, and after which delays; None is `Retry()`.

    Raises:
        TypeError: The client is asynchronous.

    Example:
        ```python
        store = QdrantStore(QdrantClient(path="library.qdrant"), "photos")
        ingest(Loader().load(["photos"]), Embedder(), store)
        ```
    """

    core: QdrantCore

    def __init__(
        self,
        client: QdrantClient,
        collection: str = "qwen3vl",
        *,
        layout: Layout | None = None,
        tenant: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(QdrantCore(client, collection, layout, tenant, retry))

    @property
    def client(self) -> QdrantClient:
        """The Qdrant client."""
        return cast("QdrantClient", self.core.client)

    @property
    def layout(self) -> Layout | None:
        """The layout that was passed, else the collection's; None until the collection was created or read."""
        return self.core.layout


class AsyncQdrantStore(AsyncStore):
    """A Qdrant collection behind an asynchronous client.

    Args:
        client: An asynchronous client.
        collection: As for `QdrantStore`.
        layout: As for `QdrantStore`.
        tenant: As for `QdrantStore`.
        retry: As for `QdrantStore`.

    Raises:
        TypeError: The client is blocking.

    Example:
        ```python
        store = AsyncQdrantStore(AsyncQdrantClient(url="http://localhost:6333"), "photos")
        await aingest(Loader().load(["photos"]), Embedder(), store)
        ```
    """

    core: QdrantCore

    def __init__(
        self,
        client: AsyncQdrantClient,
        collection: str = "qwen3vl",
        *,
        layout: Layout | None = None,
        tenant: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(QdrantCore(client, collection, layout, tenant, retry))

    @property
    def client(self) -> AsyncQdrantClient:
        """The Qdrant client."""
        return cast("AsyncQdrantClient", self.core.client)

    @property
    def layout(self) -> Layout | None:
        """The layout that was passed, else the collection's; None until the collection was created or read."""
        return self.core.layout

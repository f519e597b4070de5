"""`QdrantEdgeStore`: a collection in a folder, in Qdrant's own engine in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qdrant_client import models

from qwen3vl.stores import Point
from qwen3vl_qdrant.core import FLOATS_PER_WORD, QdrantCore
from qwen3vl_qdrant.edge.backend import EdgeBackend
from qwen3vl_qdrant.edge.client import EdgeClient
from qwen3vl_qdrant.layout import Layout
from qwen3vl_qdrant.reading import ids_to_write
from qwen3vl_qdrant.store import QdrantStore

_FLOAT_BYTES = 4


class EdgeCore(QdrantCore):
    """One collection of a folder.

    Args:
        backend: The open folder.
        collection: As for `QdrantCore`.
        layout: As for `QdrantCore`.
        tenant: As for `QdrantCore`.
    """

    def __init__(self, backend: EdgeBackend, collection: str, layout: Layout | None, tenant: str | None) -> None:
        super().__init__(backend, collection, layout, tenant, None)
        if backend.folder.is_read_only:
            self.read_only_folder = str(backend.location)

    def request_bytes(self, point: Point, payload: Mapping[str, Any]) -> int:
        """Return the approximate size of a point with all its vectors: `upsert` makes writes of bounded size.

        The payload's size is not measured by `json.dumps`, which would take 3 % of the time of a write.
        """
        layout = self.layout or Layout()
        num_words = len(point.document.words) // 2 if layout.hybrid else 0
        num_floats = len(point.vector) + (layout.short or 0) + FLOATS_PER_WORD * num_words
        # LlamaIndex's node, in JSON, has the text and the metadata, and the payload has them once more.
        node = payload.get("_node_content")
        size = 2 * len(node) if isinstance(node, str) else len(json.dumps(payload))  # payloads of others may have none
        return _FLOAT_BYTES * num_floats + size

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points, and index them when many have come. They are on the disk when this returns.

        Args:
            points: The points; those whose id is stored already are replaced.
        """
        await super().upsert(points)
        if points:
            await self.request(self.client.finish_writes, self.collection)

    async def write(self, points: Sequence[Point], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points at once. They outlive this process; `upsert` writes them to the disk."""
        layout = await self._load_layout()
        vectors = [layout.to_vectors(point.vector, point.document) for point in points]
        rows = list(zip(ids_to_write(points), vectors, payloads, strict=True))
        await self.request(self.client.write, self.collection, rows)

    def to_query(self, **arguments: Any) -> models.QueryRequest:
        """Return a request, which is not validated either."""
        return models.QueryRequest.model_construct(**arguments)


class QdrantEdgeStore(QdrantStore):
    """A Qdrant collection in a folder, without a server: Qdrant's own engine in this process.

    It has the index, the quantization and the filters of a server. One process at a time can have a folder open; its
    threads share it. Points are on the disk when they are written: they outlive a power cut.

    Args:
        folder: The folder; it is created if it does not exist. It may have many collections.
        collection: Name of the collection.
        layout: As for `QdrantStore`.
        tenant: As for `QdrantStore`.

    Raises:
        StoreError: Another process has the folder open, or a file is damaged.

    Example:
        ```python
        store = QdrantEdgeStore("library", layout=Layout(short=512))
        ingest(Loader().load(["photos"]), Embedder(), store)
        ```
    """

    core: EdgeCore

    def __init__(
        self,
        folder: str | Path,
        collection: str = "qwen3vl",
        *,
        layout: Layout | None = None,
        tenant: str | None = None,
    ) -> None:
        self._client = EdgeClient(folder)
        backend = self._client.backend
        try:
            self.core = EdgeCore(backend, collection, layout, tenant)
            if backend.collection_exists(collection):
                backend.folder.open(collection)  # a damaged file is an error of this call
        except BaseException:
            backend.close()
            raise

    @property
    def client(self) -> EdgeClient:
        """A `QdrantClient` of the folder, for LangChain's and LlamaIndex's stores, and for scripts."""
        return self._client

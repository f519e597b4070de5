"""A `QdrantClient` over a folder of Qdrant Edge."""

from __future__ import annotations

from pathlib import Path

from qdrant_client import QdrantClient

from qwen3vl_qdrant.edge.backend import EdgeBackend


class EdgeClient(QdrantClient):
    """A `QdrantClient` whose collections are in a folder, in Qdrant's own engine in this process.

    Args:
        folder: The folder; it is created if it does not exist.

    Attributes:
        backend: What it calls.

    Raises:
        StoreError: Another process has the folder open, or it cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.backend = EdgeBackend(Path(folder))
        super().__init__(":memory:")
        self._client.close()
        self._client = self.backend
        self._init_options = {"folder": str(folder)}

    def __del__(self) -> None:
        """Leave the folder to the backend, which a store may still use."""

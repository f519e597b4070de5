"""The methods of a `QdrantClient` for collections and payload indexes, implemented with Qdrant Edge."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.client_base import QdrantBase

from qwen3vl.errors import StoreError
from qwen3vl_qdrant.edge.configs import DEFAULT_HNSW, schema_name, to_edge_config, to_edge_schema
from qwen3vl_qdrant.edge.folder import EdgeFolder, acquire_folder, release_folder

_COMPLETED = models.UpdateResult(operation_id=0, status=models.UpdateStatus.COMPLETED)
_IGNORED = frozenset({"wait", "ordering", "timeout", "consistency"})
"""Arguments that are accepted and have no effect: they concern requests to a server and its replicas."""


class CollectionsBackend(QdrantBase):
    """The methods for collections and payload indexes. Any number of threads may use one object at once.

    When a method returns, its changes survive a power cut. Those of `write` do when `finish_writes` has returned.

    Args:
        location: The folder; it is created if it does not exist.

    Attributes:
        location: As passed.

    Raises:
        StoreError: Another process has the folder open, or it cannot be read.
    """

    def __init__(self, location: Path) -> None:
        super().__init__()
        self.location = location
        self._folder: EdgeFolder | None = acquire_folder(location)
        self._release = weakref.finalize(self, release_folder, self._folder)

    @property
    def folder(self) -> EdgeFolder:
        """The open folder.

        Raises:
            RuntimeError: This object is closed.
        """
        if self._folder is None:
            raise RuntimeError(f"the store in {self.location} is closed")
        return self._folder

    def close(self, **_: Any) -> None:
        """Stop using the folder; this process's last user closes it. Later calls of other methods fail."""
        self._folder = None
        self._release()

    def collection_exists(self, collection_name: str, **kwargs: Any) -> bool:
        """Return whether there is a collection of this name."""
        refuse(kwargs)
        return self.folder.exists(collection_name)

    def get_collections(self, **kwargs: Any) -> models.CollectionsResponse:
        """Return the names of the collections."""
        refuse(kwargs)
        names = self.folder.names()
        return models.CollectionsResponse(collections=[models.CollectionDescription(name=name) for name in names])

    def create_collection(
        self,
        collection_name: str,
        vectors_config: Any = None,
        sparse_vectors_config: Any = None,
        hnsw_config: models.HnswConfigDiff | None = None,
        quantization_config: Any = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> bool:
        """Create a collection with dense and sparse vectors. `ValueError` if it exists.

        Settings of shards, replicas, optimizers, the log and the storage of payloads have no effect: a folder has one
        shard, whose payloads are on disk.
        """
        refuse(kwargs, {"on_disk_payload", "optimizers_config", "wal_config", "shard_number", "replication_factor"})
        description = models.CreateCollection(
            vectors=vectors_config,
            sparse_vectors=sparse_vectors_config,
            hnsw_config=hnsw_config,
            quantization_config=quantization_config,
            metadata=metadata,
        )
        self.check_writable()
        to_edge_config(description)  # raises an error for what Edge does not have, before anything is written
        self.folder.create(collection_name, description)
        return True

    def recreate_collection(self, collection_name: str, vectors_config: Any = None, **kwargs: Any) -> bool:
        """Delete a collection if it exists, and create it."""
        self.delete_collection(collection_name)
        return self.create_collection(collection_name, vectors_config, **kwargs)

    def delete_collection(self, collection_name: str, **kwargs: Any) -> bool:
        """Delete a collection with its points; false if there is none."""
        refuse(kwargs)
        self.check_writable()
        return self.folder.delete(collection_name)

    def get_collection(self, collection_name: str, **kwargs: Any) -> models.CollectionInfo:
        """Return the description and the state of a collection."""
        refuse(kwargs)
        collection = self.folder.open(collection_name)
        description = collection.description
        info = collection.call("info")
        hnsw = description.hnsw_config.model_dump(exclude_none=True) if description.hnsw_config else {}
        return models.CollectionInfo(
            status=models.CollectionStatus.GREEN,
            optimizer_status=models.OptimizersStatusOneOf.OK,
            points_count=info.points_count,
            indexed_vectors_count=info.indexed_vectors_count,
            segments_count=info.segments_count,
            payload_schema={
                key: models.PayloadIndexInfo(data_type=schema_name(index.data_type), points=index.points)
                for key, index in info.payload_schema.items()
            },
            config=models.CollectionConfig(
                params=models.CollectionParams(vectors=description.vectors, sparse_vectors=description.sparse_vectors),
                hnsw_config=DEFAULT_HNSW.model_copy(update=hnsw),
                optimizer_config=models.OptimizersConfig(
                    deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=0
                ),
                wal_config=models.WalConfig(wal_capacity_mb=32, wal_segments_ahead=0),
                quantization_config=description.quantization_config,
                metadata=description.metadata,
            ),
        )

    def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: Any = None, field_type: Any = None, **kwargs: Any
    ) -> models.UpdateResult:
        """Index a key of the payload."""
        refuse(kwargs)
        schema = to_edge_schema(field_schema if field_schema is not None else field_type)
        return self.update(collection_name, edge.UpdateOperation.create_field_index(field_name, schema))

    def delete_payload_index(self, collection_name: str, field_name: str, **kwargs: Any) -> models.UpdateResult:
        """Remove the index of a key of the payload."""
        refuse(kwargs)
        return self.update(collection_name, edge.UpdateOperation.delete_field_index(field_name))

    def update(
        self, collection_name: str, operation: edge.UpdateOperation, *, flush: bool = True
    ) -> models.UpdateResult:
        """Change points, and write the change to the disk."""
        self.check_writable()
        collection = self.folder.open(collection_name)
        collection.update(operation)
        if flush:
            collection.flush()
        return _COMPLETED

    def check_writable(self) -> None:
        """Raise `StoreError` if the folder cannot be written."""
        if self.folder.is_read_only:
            raise StoreError(
                f"{self.location} cannot be written by this process: make the folder and its files writable"
            )


def refuse(options: dict[str, Any], ignored: set[str] | None = None) -> None:
    """Raise `NotImplementedError` for an option that Edge does not have, unless it has no effect on the result."""
    for name, value in options.items():
        if value is not None and name not in _IGNORED and name not in (ignored or ()):
            raise NotImplementedError(f"a folder does not support the argument {name}: leave it out, or use a server")

"""A `QdrantClient`'s face on Qdrant's own engine in this process: real HNSW and quantisation without a server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qdrant_edge as edge
from qdrant_client import models


class EdgeClient:
    """One collection, as one shard of the embedded engine.  RunState `index` when it is filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shard: Any = None
        self.made: dict[str, Any] = {}

    def collection_exists(self, _: str) -> bool:
        return self.shard is not None

    def create_collection(self, _: str, *, vectors_config: Any, metadata: Any, hnsw_config: Any = None) -> None:
        named = vectors_config if isinstance(vectors_config, dict) else {"": vectors_config}
        params = {name: _params(each) for name, each in named.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        # Kilobytes of vectors from which on a segment gets an index: here, at once.
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=100, default_segment_number=1)
        # The index is searched even where a scan of so few vectors would be faster.  One thread builds it: several race
        # each other on a busy machine, and now and then leave points that are hard to reach.
        hnsw = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=1, max_indexing_threads=1)
        config = edge.EdgeConfig(vectors=params, optimizers=optimizers, hnsw_config=hnsw)
        self.shard = edge.EdgeShard.create(str(self.folder), config)
        self.made = {"vectors": vectors_config, "metadata": metadata, "hnsw": hnsw_config}

    def get_collection(self, _: str) -> Any:
        hnsw = self.made["hnsw"] or SimpleNamespace(m=16, payload_m=None)
        params = SimpleNamespace(vectors=self.made["vectors"])
        config = SimpleNamespace(
            params=params, quantization_config=None, hnsw_config=hnsw, metadata=self.made["metadata"]
        )
        return SimpleNamespace(config=config, payload_schema=self.shard.info().payload_schema)

    def create_payload_index(self, _: str, key: str, __: Any, *, wait: bool) -> None:
        assert wait
        self.shard.update(edge.UpdateOperation.create_field_index(key, edge.PayloadSchemaType.Keyword))

    def upsert(self, _: str, points: Sequence[models.PointStruct], *, wait: bool) -> None:
        assert wait
        made: list[Any] = [edge.Point(*_parts(each)) for each in points]
        self.shard.update(edge.UpdateOperation.upsert_points(made))

    def retrieve(self, _: str, ids: Sequence[str], *, with_payload: bool, with_vectors: Any) -> Any:
        found = self.shard.retrieve(list(ids), with_payload, bool(with_vectors))
        return [SimpleNamespace(id=each.id, payload=each.payload, vector=each.vector) for each in found]

    def count(self, _: str, **__: Any) -> Any:
        return SimpleNamespace(count=self.shard.info().points_count)

    def index(self) -> int:
        """Builds the index; returns how many vectors it holds."""
        self.shard.optimize()
        return int(self.shard.info().indexed_vectors_count)

    def query_batch_points(self, _: str, requests: Sequence[models.QueryRequest]) -> list[Any]:
        return [SimpleNamespace(points=self.shard.query(_request(each))) for each in requests]

    def close(self) -> None:
        self.shard.close()


def _parts(point: models.PointStruct) -> tuple[Any, Any, Any]:
    return point.id, point.vector, point.payload


def _params(given: models.VectorParams) -> Any:
    return edge.EdgeVectorParams(
        size=given.size, distance=edge.Distance.Cosine, quantization_config=_quantization(given.quantization_config)
    )


def _quantization(given: Any) -> Any:
    if given is None:
        return None
    if isinstance(given, models.ScalarQuantization):
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=given.scalar.quantile, always_ram=True)
    if isinstance(given, models.BinaryQuantization):
        return edge.BinaryQuantizationConfig(always_ram=True)
    assert given.turbo.bits == models.TurboQuantBitSize.BITS4
    return edge.TurboQuantQuantizationConfig(always_ram=True, bits=edge.TurboQuantBitSize.Bits4)


def _search_params(given: models.SearchParams | None) -> Any:
    if given is None:
        return None
    quantization: Any = given.quantization and edge.QuantizationSearchParams(
        ignore=bool(given.quantization.ignore),
        rescore=given.quantization.rescore,
        oversampling=given.quantization.oversampling,
    )
    return edge.SearchParams(hnsw_ef=given.hnsw_ef, exact=bool(given.exact), quantization=quantization)


def _request(given: Any) -> Any:
    assert given.filter is None
    prefetch: Any = given.prefetch
    prefetches = prefetch and [
        edge.Prefetch(
            limit=prefetch.limit,
            query=edge.Query.Nearest(prefetch.query, using=prefetch.using),
            params=_search_params(prefetch.params),
        )
    ]
    return edge.QueryRequest(
        limit=given.limit,
        offset=given.offset,
        query=edge.Query.Nearest(given.query, using=given.using),
        prefetches=prefetches,
        with_payload=bool(given.with_payload),
        score_threshold=given.score_threshold,
        params=_search_params(given.params),
    )

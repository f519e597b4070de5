"""The part of `QdrantClient` that a store uses, over Qdrant's own engine in this process.

Unlike the client's embedded mode, the engine has HNSW and quantization, as a server has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qdrant_edge as edge
from qdrant_client import models


class EdgeClient:
    """One collection, as one shard of the engine. Call `index` when it is filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shard: Any = None
        self.arguments: dict[str, Any] = {}

    def collection_exists(self, _: str) -> bool:
        return self.shard is not None

    def create_collection(self, _: str, *, vectors_config: Any, metadata: Any, hnsw_config: Any = None) -> None:
        by_name = vectors_config if isinstance(vectors_config, dict) else {"": vectors_config}
        vectors = {name: _to_edge_params(params) for name, params in by_name.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        # Kilobytes of vectors above which a segment is indexed: all segments here.
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=100, default_segment_number=1)
        # full_scan_threshold: use the index even where a scan of so few vectors would be faster. One indexing thread:
        # on a busy machine several threads sometimes leave points that are hard to reach.
        hnsw = edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=1, max_indexing_threads=1)
        config = edge.EdgeConfig(vectors=vectors, optimizers=optimizers, hnsw_config=hnsw)
        self.shard = edge.EdgeShard.create(str(self.folder), config)
        self.arguments = {"vectors": vectors_config, "metadata": metadata, "hnsw": hnsw_config}

    def get_collection(self, _: str) -> Any:
        hnsw = self.arguments["hnsw"] or SimpleNamespace(m=16, payload_m=None)
        params = SimpleNamespace(vectors=self.arguments["vectors"])
        config = SimpleNamespace(
            params=params, quantization_config=None, hnsw_config=hnsw, metadata=self.arguments["metadata"]
        )
        return SimpleNamespace(config=config, payload_schema=self.shard.info().payload_schema)

    def create_payload_index(self, _: str, key: str, __: Any, *, wait: bool) -> None:
        assert wait
        self.shard.update(edge.UpdateOperation.create_field_index(key, edge.PayloadSchemaType.Keyword))

    def upsert(self, _: str, points: Sequence[models.PointStruct], *, wait: bool) -> None:
        assert wait
        edge_points: list[Any] = [edge.Point(*_point_fields(point)) for point in points]
        self.shard.update(edge.UpdateOperation.upsert_points(edge_points))

    def retrieve(self, _: str, ids: Sequence[str], *, with_payload: bool, with_vectors: Any) -> Any:
        records = self.shard.retrieve(list(ids), with_payload, bool(with_vectors))
        return [SimpleNamespace(id=record.id, payload=record.payload, vector=record.vector) for record in records]

    def count(self, _: str, **__: Any) -> Any:
        return SimpleNamespace(count=self.shard.info().points_count)

    def index(self) -> int:
        """Build the index; returns the number of vectors in it."""
        self.shard.optimize()
        return int(self.shard.info().indexed_vectors_count)

    def query_batch_points(self, _: str, requests: Sequence[models.QueryRequest]) -> list[Any]:
        return [SimpleNamespace(points=self.shard.query(_to_edge_request(request))) for request in requests]

    def close(self) -> None:
        self.shard.close()


def _point_fields(point: models.PointStruct) -> tuple[Any, Any, Any]:
    return point.id, point.vector, point.payload


def _to_edge_params(params: models.VectorParams) -> Any:
    return edge.EdgeVectorParams(
        size=params.size,
        distance=edge.Distance.Cosine,
        quantization_config=_to_edge_quantization(params.quantization_config),
    )


def _to_edge_quantization(config: Any) -> Any:
    if config is None:
        return None
    if isinstance(config, models.ScalarQuantization):
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=config.scalar.quantile, always_ram=True)
    if isinstance(config, models.BinaryQuantization):
        return edge.BinaryQuantizationConfig(always_ram=True)
    assert config.turbo.bits == models.TurboQuantBitSize.BITS4
    return edge.TurboQuantQuantizationConfig(always_ram=True, bits=edge.TurboQuantBitSize.Bits4)


def _to_edge_search_params(params: models.SearchParams | None) -> Any:
    if params is None:
        return None
    quantization: Any = params.quantization and edge.QuantizationSearchParams(
        ignore=bool(params.quantization.ignore),
        rescore=params.quantization.rescore,
        oversampling=params.quantization.oversampling,
    )
    return edge.SearchParams(hnsw_ef=params.hnsw_ef, exact=bool(params.exact), quantization=quantization)


def _to_edge_request(request: Any) -> Any:
    assert request.filter is None
    prefetch: Any = request.prefetch
    prefetches = prefetch and [
        edge.Prefetch(
            limit=prefetch.limit,
            query=edge.Query.Nearest(prefetch.query, using=prefetch.using),
            params=_to_edge_search_params(prefetch.params),
        )
    ]
    return edge.QueryRequest(
        limit=request.limit,
        offset=request.offset,
        query=edge.Query.Nearest(request.query, using=request.using),
        prefetches=prefetches,
        with_payload=bool(request.with_payload),
        score_threshold=request.score_threshold,
        params=_to_edge_search_params(request.params),
    )

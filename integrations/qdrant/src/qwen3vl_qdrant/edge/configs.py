"""Conversion of a collection's configuration from qdrant-client's models to Qdrant Edge's classes."""

from __future__ import annotations

from typing import Any, get_args

import qdrant_edge as edge
from qdrant_client import models

DEFAULT_HNSW = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=10_000)
"""Edge's own defaults. `full_scan_threshold` is in kilobytes of vectors."""
INDEXING_THRESHOLD_KB = 10_000
"""Kilobytes of vectors above which a segment gets an index: Edge's own default."""
_PAYLOAD_SCHEMAS: dict[str, Any] = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "geo": edge.PayloadSchemaType.Geo,
    "text": edge.PayloadSchemaType.Text,
    "bool": edge.PayloadSchemaType.Bool,
    "datetime": edge.PayloadSchemaType.Datetime,
    "uuid": edge.PayloadSchemaType.Uuid,
}


def to_edge_config(description: models.CreateCollection) -> edge.EdgeConfig:
    """Return the configuration of a new shard.

    Vectors and payloads are on disk, and read through the page cache; quantized vectors and the HNSW graph are in
    memory. `on_disk` and `memory` of vectors and of the graph are obeyed; those of quantized vectors, and `always_ram`,
    have no effect. None of them changes what is found.

    Args:
        description: Vectors, HNSW and quantization of the collection.

    Returns:
        The configuration.

    Raises:
        NotImplementedError: The vectors are multivectors or not float32, or the quantization is not supported.
    """
    vectors = dense_vectors(description.vectors)
    return edge.EdgeConfig(
        vectors={name: _vector_params(params) for name, params in vectors.items()},
        sparse_vectors={name: _sparse_params(params) for name, params in (description.sparse_vectors or {}).items()},
        hnsw_config=_hnsw(description.hnsw_config),
        quantization_config=_quantization(description.quantization_config),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=INDEXING_THRESHOLD_KB),
    )


def dense_vectors(vectors: Any) -> dict[str, models.VectorParams]:
    """Return the parameters of the dense vectors by name; the name of a vector without one is `""`."""
    if vectors is None:
        return {}
    return {"": vectors} if isinstance(vectors, models.VectorParams) else dict(vectors)


def to_edge_schema(schema: Any) -> Any:
    """Convert the schema of a payload index.

    Args:
        schema: A `models.PayloadSchemaType`, or the parameters of an index; None is a keyword index.

    Returns:
        The schema in Edge's form.

    Raises:
        NotImplementedError: `schema` is of another type, or sets `stopwords`, `stemmer`, `memory` or `scoring`, which
            this function does not convert. No parameter is ignored.
    """
    if schema is None:
        return edge.PayloadSchemaType.Keyword
    if isinstance(schema, get_args(models.PayloadSchemaParams)):
        return _index_params(schema)
    name = getattr(schema, "value", schema)
    if isinstance(name, str) and name in _PAYLOAD_SCHEMAS:
        return _PAYLOAD_SCHEMAS[name]
    raise NotImplementedError(
        f"a folder has no payload index of type {type(schema).__name__}: pass a models.PayloadSchemaType"
    )


def schema_name(schema: Any) -> models.PayloadSchemaType:
    """Return the type of an existing payload index as qdrant-client names it."""
    return models.PayloadSchemaType(next(name for name, known in _PAYLOAD_SCHEMAS.items() if known == schema))


def _index_params(schema: Any) -> Any:
    values = {name: value for name, value in schema if value is not None and name != "type"}
    for name in ("stopwords", "stemmer", "memory", "scoring"):
        if name in values:
            raise NotImplementedError(f"a folder has no payload index with {name}: leave it out, or use a server")
    if "tokenizer" in values:
        values["tokenizer"] = getattr(edge.TokenizerType, values["tokenizer"].value.title())
    return getattr(edge, type(schema).__name__)(**values)


def _vector_params(params: models.VectorParams) -> edge.EdgeVectorParams:
    if params.multivector_config is not None or params.datatype not in (None, models.Datatype.FLOAT32):
        raise NotImplementedError("a folder stores dense float32 vectors: multivectors and other types need a server")
    return edge.EdgeVectorParams(
        size=params.size,
        distance=getattr(edge.Distance, params.distance.value),
        memory=_memory(params),
        quantization_config=_quantization(params.quantization_config),
        hnsw_config=None if params.hnsw_config is None else _hnsw(params.hnsw_config),
    )


def _sparse_params(params: models.SparseVectorParams) -> edge.EdgeSparseVectorParams:
    index = params.index or models.SparseIndexParams()
    if index.datatype not in (None, models.Datatype.FLOAT32):
        raise NotImplementedError("a folder stores sparse float32 vectors: other types need a server")
    modifier = edge.Modifier.Idf if params.modifier == models.Modifier.IDF else None
    return edge.EdgeSparseVectorParams(index.full_scan_threshold, memory=_memory(index), modifier=modifier)


def _memory(params: models.VectorParams | models.SparseIndexParams) -> edge.Memory:
    if params.memory is not None:
        return _to_edge_memory(params.memory)
    return edge.Memory.Cached if params.on_disk is False else edge.Memory.Cold


def _to_edge_memory(memory: models.Memory) -> edge.Memory:
    converted: edge.Memory = getattr(edge.Memory, memory.value.title())
    return converted


def _hnsw(config: models.HnswConfigDiff | None) -> edge.HnswIndexConfig:
    values = config.model_dump(exclude_none=True) if config else {}
    if "memory" in values:
        values["memory"] = _to_edge_memory(values["memory"])
    defaults = {name: getattr(DEFAULT_HNSW, name) for name in ("m", "ef_construct", "full_scan_threshold")}
    return edge.HnswIndexConfig(**{**defaults, **values})


def _quantization(config: Any) -> Any:
    pinned = edge.Memory.Pinned
    match config:
        case None:
            return None
        case models.ScalarQuantization():
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=config.scalar.quantile, memory=pinned)
        case models.BinaryQuantization() if config.binary.encoding is None and config.binary.query_encoding is None:
            return edge.BinaryQuantizationConfig(memory=pinned)
        case models.TurboQuantization() if config.turbo.bits in (None, models.TurboQuantBitSize.BITS4):
            return edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4, memory=pinned)
    raise NotImplementedError(f"a folder has no quantization {config!r}: use one of Layout's, or a server")

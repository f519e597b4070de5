"""How a collection stores its vectors, and how searches make up for what a compact form loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qwen3vl.documents import Document
from qwen3vl.errors import StoreError
from qwen3vl.stores import Search, Vector
from qwen3vl_qdrant.bm25 import Bm25

Quantization = Literal["scalar", "binary", "turbo"]
SHORT_VECTOR_NAME = "short"
"""Name of the Matryoshka vector. The full vector has no name, because other readers of the collection expect that."""
TEXT_VECTOR_NAME = "text"
"""Name of the sparse vector of a document's words."""
BM25_KEY = "qwen3vl_bm25"
"""Key of the collection's metadata under which the settings of its sparse vectors are stored."""
OVERSAMPLING: dict[Quantization, float] = {"scalar": 2.0, "turbo": 4.0, "binary": 16.0}
"""Candidates per hit that are rescored with full vectors; see docs/quantization.md for the measured recall."""
SHORT_OVERSAMPLING = 20.0
"""Candidates per hit of a short vector."""
MIN_SHORT_CANDIDATES = 100
"""Minimum number of candidates of a short vector."""
_MIN_NORM = 1e-12
"""Avoids division by zero for vectors of zeros."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a collection stores beside the full vectors, for faster search in less memory.

    Short and quantized vectors only find candidates; their scores are computed with the full vectors.

    Attributes:
        short: Number of values of a Matryoshka vector (the first values of the full one) that finds the candidates;
            None for no such vector.
        quantization: Quantization of the vector that finds the candidates: `"scalar"` (8 bits a value), `"turbo"`
            (4 bits), `"binary"` (1 bit), or None.
        tenants: Whether to build one index per tenant and none across tenants: a search without tenant and filter then
            reads all points.
        hybrid: Whether to store the words of each document as a sparse vector, for search by words and by both: True
            for English, the name of another language, or all settings; False for no such vector.

    Raises:
        ValueError: A value is not supported.

    Example:
        ```python
        QdrantStore(client, layout=Layout(short=512, quantization="scalar"))
        ```
    """

    short: int | None = None
    quantization: Quantization | None = None
    tenants: bool = False
    hybrid: bool | str | Bm25 = False

    def __post_init__(self) -> None:
        if self.quantization not in (None, *OVERSAMPLING):
            raise ValueError(f"quantization is {self.quantization!r}; it may be {', '.join(OVERSAMPLING)} or None")
        if self.short is not None and self.short < 1:
            raise ValueError(f"short is {self.short}; it must be at least 1")
        if self.hybrid is True or isinstance(self.hybrid, str):
            object.__setattr__(self, "hybrid", Bm25() if self.hybrid is True else Bm25(self.hybrid))

    @property
    def bm25(self) -> Bm25 | None:
        """The settings of the sparse vectors; None if there are none."""
        return self.hybrid if isinstance(self.hybrid, Bm25) else None

    def collection_arguments(self, dimensions: int) -> dict[str, Any]:
        """Return the arguments of `QdrantClient.create_collection` for this layout.

        Args:
            dimensions: Number of values of the full vectors.

        Returns:
            `vectors_config`, `sparse_vectors_config` and `hnsw_config`.

        Raises:
            ValueError: `short` is not less than `dimensions`.
        """
        if self.short is not None and self.short >= dimensions:
            raise ValueError(f"short is {self.short}; it must be less than the vectors' {dimensions} values")
        quantization = _quantization_config(self.quantization)
        hnsw = models.HnswConfigDiff(m=0, payload_m=16) if self.tenants else None
        vectors: Any
        if self.short is None:
            vectors = _vector_params(dimensions, quantization)
        else:
            vectors = {
                "": _vector_params(dimensions, None),
                SHORT_VECTOR_NAME: _vector_params(self.short, quantization),
            }
        # Qdrant multiplies the words' weights by their rarity in the collection (IDF).
        words = models.SparseVectorParams(modifier=models.Modifier.IDF)
        sparse_vectors = {TEXT_VECTOR_NAME: words} if self.hybrid else None
        return {"vectors_config": vectors, "sparse_vectors_config": sparse_vectors, "hnsw_config": hnsw}

    @property
    def metadata(self) -> dict[str, Any]:
        """What the collection's metadata say about the layout."""
        return {} if self.bm25 is None else {BM25_KEY: self.bm25.to_dict()}

    @classmethod
    def from_config(
        cls, params: models.CollectionParams, config: models.CollectionConfig, metadata: Mapping[str, Any]
    ) -> tuple[int, str, Layout]:
        """Read the layout of an existing collection, which `check_vectors` has accepted.

        Args:
            params: Its parameters.
            config: Its configuration.
            metadata: Its metadata.

        Returns:
            Number of values and distance of the full vectors, and the layout.
        """
        vectors = _dense_vectors(params)
        full, short = vectors[""], vectors.get(SHORT_VECTOR_NAME)
        quantization = _quantization_name((short or full).quantization_config or config.quantization_config)
        tenants = config.hnsw_config.m == 0 and bool(config.hnsw_config.payload_m)
        has_words = BM25_KEY in metadata and TEXT_VECTOR_NAME in (params.sparse_vectors or {})
        hybrid = Bm25.from_dict(metadata[BM25_KEY]) if has_words else False
        return full.size, str(full.distance), cls(short.size if short else None, quantization, tenants, hybrid)

    def to_vectors(self, vector: Vector, document: Document) -> Any:
        """Return what is stored for a full vector.

        Args:
            vector: (dimensions,) float32.
            document: Its document.

        Returns:
            An array, or vectors by name: arrays and a sparse vector. A document without words has no sparse vector.
        """
        vectors: dict[str, Any] = {"": vector}
        if self.short is not None:
            vectors[SHORT_VECTOR_NAME] = truncate(vector, self.short)
        if self.bm25 is not None:
            words = self.bm25.embed_document(document.words)
            vectors |= {TEXT_VECTOR_NAME: words} if words.indices else {}
        return vectors if len(vectors) > 1 else vectors[""]

    def query_arguments(
        self, search: Search, query_filter: models.Filter | None, oversampling: float | None = None
    ) -> dict[str, Any]:
        """Return the arguments of a `QueryRequest` that finds candidates and scores them with full vectors.

        Args:
            search: The search; its mode is not read. Its offset is not an argument, but the candidates of a short
                vector cover it.
            query_filter: Its filter in Qdrant's form.
            oversampling: Candidates per hit: of the short vector if there is one (at least `MIN_SHORT_CANDIDATES` in
                all), else of the quantized vector; no effect without either. None is the default of the layout.

        Returns:
            `query`, `limit`, `score_threshold`, `filter`, and `params` or `prefetch`.
        """
        arguments: dict[str, Any] = {
            "query": search.vector.tolist(),
            "limit": search.limit,
            "score_threshold": search.threshold,
            "filter": query_filter,
        }
        if search.exact:
            ignore_quantization = models.QuantizationSearchParams(ignore=True)
            return {**arguments, "params": models.SearchParams(exact=True, quantization=ignore_quantization)}
        params = None
        if self.quantization is not None:
            # Candidates of a short vector are many already, so its quantization needs the default factor only.
            factor = oversampling if self.short is None and oversampling else OVERSAMPLING[self.quantization]
            rescoring = models.QuantizationSearchParams(rescore=True, oversampling=factor)
            params = models.SearchParams(quantization=rescoring)
        if self.short is None:
            return {**arguments, "params": params}
        prefetch = models.Prefetch(
            query=truncate(search.vector, self.short).tolist(),
            using=SHORT_VECTOR_NAME,
            limit=max(
                MIN_SHORT_CANDIDATES, round((search.limit + search.offset) * (oversampling or SHORT_OVERSAMPLING))
            ),
            filter=query_filter,
            params=params,
        )
        return {**arguments, "prefetch": prefetch}


def check_vectors(params: models.CollectionParams, name: str) -> None:
    """Check that a collection has the vector that qwen3vl writes: one for each point, without a name.

    Args:
        params: The collection's parameters.
        name: The collection, for the message.

    Raises:
        StoreError: The collection has no dense vector without a name (only named or sparse ones), or that one is a
            multivector.
    """
    dense = _dense_vectors(params)
    if "" in dense and dense[""].multivector_config is None:
        return
    kinds = {key: "dense" if vector.multivector_config is None else "multivector" for key, vector in dense.items()}
    kinds |= dict.fromkeys(params.sparse_vectors or {}, "sparse")
    found = ", ".join(f"{key!r} ({kind})" for key, kind in kinds.items()) or "none"
    raise StoreError(
        f"{name} was not made by qwen3vl, which stores one dense vector without a name for each point. Its vectors "
        f"are: {found}. Use another collection name"
    )


def truncate(vector: Vector, length: int) -> NDArray[np.float32]:
    """Return the first values of a Matryoshka vector, normalized.

    Args:
        vector: (dimensions,) float32.
        length: Number of values.

    Returns:
        (length,) float32 with norm 1; zeros if these values are all zero.
    """
    short = vector[:length]
    return np.asarray(short / max(float(np.linalg.norm(short)), _MIN_NORM), dtype=np.float32)


def _dense_vectors(params: models.CollectionParams) -> dict[str, models.VectorParams]:
    """Return the dense vectors of a collection by name; there are none if it has only sparse ones."""
    if params.vectors is None or isinstance(params.vectors, dict):
        return params.vectors or {}
    return {"": params.vectors}


def _vector_params(size: int, quantization: Any) -> models.VectorParams:
    return models.VectorParams(size=size, distance=models.Distance.COSINE, quantization_config=quantization)


def _quantization_config(quantization: Quantization | None) -> Any:
    """Return Qdrant's configuration. Quantized vectors stay in memory; full ones are read for candidates only."""
    if quantization == "scalar":
        # Clipping 1 % of the values as outliers leaves more of the 256 steps for the others.
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        return models.ScalarQuantization(scalar=scalar)
    if quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    if quantization == "turbo":
        turbo = models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS4, always_ram=True)
        return models.TurboQuantization(turbo=turbo)
    return None


def _quantization_name(config: Any) -> Quantization | None:
    return next((name for name in OVERSAMPLING if getattr(config, name, None) is not None), None)


def to_lists(vectors: Any) -> Any:
    """Convert vectors for a client that checks them.

    Args:
        vectors: What `Layout.to_vectors` returns.

    Returns:
        The same with lists in place of arrays.
    """
    if isinstance(vectors, dict):
        return {name: to_lists(vector) for name, vector in vectors.items()}
    return vectors.tolist() if isinstance(vectors, np.ndarray) else vectors

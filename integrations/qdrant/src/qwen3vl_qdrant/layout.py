"""How a collection keeps its vectors, and how a search makes up for what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qwen3vl.errors import StoreError
from qwen3vl.stores import Search

Quantization = Literal["scalar", "binary", "turbo"]
SHORT = "short"
"""The name of the Matryoshka vector.  The full one has no name: other readers of the collection look there."""
OVERSAMPLING: dict[Quantization, float] = {"scalar": 2.0, "turbo": 4.0, "binary": 16.0}
"""Candidates for each wanted hit that are read again in full."""
SHORT_OVERSAMPLING = 20.0
LEAST = 100
"""Candidates of a short vector, however few hits are wanted."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What a collection keeps beside the full vectors, to search faster and in less memory.

    short: values of a Matryoshka vector that finds the candidates which the full vector then scores; None for none.
    quantization: of the vector that finds: "scalar" (int8, a quarter of the bytes), "turbo" (4 bits, an eighth),
    "binary" (1 bit, a 32nd); candidates are scored in full.
    tenants: the index is made for searches within one tenant, never across all.
    """

    short: int | None = None
    quantization: Quantization | None = None
    tenants: bool = False

    def __post_init__(self) -> None:
        if self.quantization not in (None, *OVERSAMPLING):
            raise ValueError(f"quantization is {self.quantization!r}; it may be {', '.join(OVERSAMPLING)} or None")
        if self.short is not None and self.short < 1:
            raise ValueError(f"short is {self.short}; it must be at least 1")

    def create(self, dimensions: int) -> dict[str, Any]:
        """Arguments of `create_collection` for vectors of this many values."""
        if self.short is not None and self.short >= dimensions:
            raise ValueError(f"short is {self.short}; it must be less than the vectors' {dimensions} values")
        quantized = _config(self.quantization)
        hnsw = models.HnswConfigDiff(m=0, payload_m=16) if self.tenants else None
        full = _params(dimensions, quantized if self.short is None else None)
        vectors = full if self.short is None else {"": full, SHORT: _params(self.short, quantized)}
        return {"vectors_config": vectors, "hnsw_config": hnsw}

    @classmethod
    def of(cls, params: models.CollectionParams, config: models.CollectionConfig) -> tuple[int, str, Layout]:
        """Dimensions, distance and layout of an existing collection."""
        vectors = params.vectors
        named = vectors if isinstance(vectors, dict) else {"": vectors}
        full, short = named.get(""), named.get(SHORT)
        if full is None:
            raise StoreError("it has no vector without a name, as qwen3vl makes it")
        finding = short or full
        quantized = _name(finding.quantization_config or config.quantization_config)
        tenants = config.hnsw_config.m == 0 and bool(config.hnsw_config.payload_m)
        return full.size, str(full.distance), cls(short.size if short else None, quantized, tenants)

    def vectors(self, vector: NDArray[np.float32]) -> Any:
        """What is stored for a full vector."""
        if self.short is None:
            return vector.tolist()
        return {"": vector.tolist(), SHORT: cut(vector, self.short).tolist()}

    def query(self, search: Search, wanted: models.Filter | None, oversampling: float | None = None) -> dict[str, Any]:
        """Arguments of a query: candidates by the short or quantised vector, scores by the full one."""
        asked: dict[str, Any] = {
            "query": search.vector.tolist(),
            "limit": search.limit,
            "score_threshold": search.threshold,
        }
        params = None
        if self.quantization is not None:
            # A short vector's candidates are many already: they need no more than the usual on top.
            factor = oversampling if self.short is None and oversampling else OVERSAMPLING[self.quantization]
            rescoring = models.QuantizationSearchParams(rescore=True, oversampling=factor)
            params = models.SearchParams(quantization=rescoring)
        if self.short is None:
            return {**asked, "filter": wanted, "params": params}
        limit = max(LEAST, round((search.limit + search.offset) * (oversampling or SHORT_OVERSAMPLING)))
        short = cut(search.vector, self.short).tolist()
        found = models.Prefetch(query=short, using=SHORT, limit=limit, filter=wanted, params=params)
        return {**asked, "prefetch": found, "filter": wanted}


def cut(vector: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """The first values of a Matryoshka vector, as a vector of length 1."""
    short = vector[:length]
    return np.asarray(short / max(float(np.linalg.norm(short)), 1e-12), dtype=np.float32)


def _params(size: int, quantized: Any) -> models.VectorParams:
    return models.VectorParams(size=size, distance=models.Distance.COSINE, quantization_config=quantized)


def _config(quantization: Quantization | None) -> Any:
    """Quantised vectors stay in memory; the full ones are read for candidates only."""
    if quantization == "scalar":
        # A share of outliers is clipped, so that the 256 steps are spent on the rest.
        scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
        return models.ScalarQuantization(scalar=scalar)
    if quantization == "binary":
        return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    if quantization == "turbo":
        turbo = models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS4, always_ram=True)
        return models.TurboQuantization(turbo=turbo)
    return None


def _name(config: Any) -> Quantization | None:
    kinds: tuple[Quantization, ...] = ("scalar", "binary", "turbo")
    return next((kind for kind in kinds if getattr(config, kind, None) is not None), None)

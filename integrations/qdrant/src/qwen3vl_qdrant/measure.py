"""What a layout costs and finds, measured on the user's own collection."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qwen3vl.errors import StoreError
from qwen3vl.stores import Search
from qwen3vl_qdrant.filters import to_filter
from qwen3vl_qdrant.layout import OVERSAMPLING, SHORT, SHORT_OVERSAMPLING, Layout, Quantization, cut
from qwen3vl_qdrant.store import QdrantStore

BITS: dict[Quantization | None, float] = {None: 32, "scalar": 8, "turbo": 4, "binary": 1}
"""WeightFormat a value of the vector that finds candidates."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One way of searching: bytes a point of the vector that finds, median milliseconds a query, and recall@k."""

    way: str
    bytes: int
    milliseconds: float
    recall: float


def measure(
    store: QdrantStore, queries: NDArray[np.float32], k: int = 10, oversampling: Sequence[float] = (1, 2, 4, 8)
) -> list[Figure]:
    """Recall@k of the collection's ways of searching against exact search with full vectors.

    queries: (n, dimension) float32; a hundred or more of the kind that users ask.  Each is timed alone.
    """
    if store.awaited:
        raise StoreError("measure needs a QdrantClient, not an AsyncQdrantClient")
    recipe = store.recipe()
    if recipe is None or store.layout is None:
        raise StoreError(f"{store.name} does not exist: nothing was ingested into it yet")
    layout, size = store.layout, recipe.dimensions
    plain = models.SearchParams(quantization=models.QuantizationSearchParams(ignore=True))
    exact = models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
    full = 4 * size
    found = round((layout.short or size) * BITS[layout.quantization] / 8)
    ways: list[tuple[str, int, Any]] = [
        ("full vectors, exact", full, lambda vector: _nearest(vector, k, exact)),
        ("full vectors, index", full, lambda vector: _nearest(vector, k, plain)),
    ]
    if layout != Layout(tenants=layout.tenants):
        ways.append((f"{_name(layout)}, not rescored", found, lambda vector: _unscored(layout, vector, k)))
        usual = SHORT_OVERSAMPLING if layout.short else OVERSAMPLING[layout.quantization or "scalar"]
        for factor in sorted({*oversampling, usual}):
            mark = " (default)" if factor == usual else ""
            ways.append(
                (
                    f"{_name(layout)}, x{factor:g} rescored{mark}",
                    found,
                    lambda vector, factor=factor: _rescored(layout, vector, k, factor),
                )
            )
    truth: list[set[str]] = []
    figures = []
    for name, size_in_bytes, request in ways:
        answers, seconds = _ask(store, [request(vector) for vector in queries])
        truth = truth or answers
        hits = sum(len(answer & right) for answer, right in zip(answers, truth, strict=True))
        recall = hits / max(1, sum(map(len, truth)))
        figures.append(Figure(name, size_in_bytes, 1000 * float(np.median(seconds)), recall))
    return figures


def table(figures: Sequence[Figure], k: int = 10) -> str:
    """The figures as a Markdown table."""
    lines = [f"| search | bytes a point | ms a query | recall@{k} |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {each.way} | {each.bytes:,} | {each.milliseconds:.2f} | {each.recall:.4f} |" for each in figures]
    return "\n".join(lines)


def _ask(store: QdrantStore, requests: Sequence[Any]) -> tuple[list[set[str]], list[float]]:
    answers, seconds = [], []
    for request in requests:
        if store.tenant is not None:
            wanted = to_filter(request.filter, store.tenant)
            prefetch = request.prefetch and request.prefetch.model_copy(update={"filter": wanted})
            request = request.model_copy(update={"filter": wanted, "prefetch": prefetch})
        began = time.perf_counter()
        (found,) = store.client.query_batch_points(store.collection, [request])
        seconds.append(time.perf_counter() - began)
        answers.append({str(point.id) for point in found.points})
    return answers, seconds


def _nearest(vector: NDArray[np.float32], k: int, params: Any, using: str | None = None) -> models.QueryRequest:
    return models.QueryRequest(query=vector.tolist(), using=using, limit=k, params=params, with_payload=False)


def _unscored(layout: Layout, vector: NDArray[np.float32], k: int) -> models.QueryRequest:
    params = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=False))
    if layout.short is None:
        return _nearest(vector, k, params)
    return _nearest(cut(vector, layout.short), k, params, SHORT)


def _rescored(layout: Layout, vector: NDArray[np.float32], k: int, factor: float) -> models.QueryRequest:
    return models.QueryRequest(**layout.query(Search(vector, k), None, factor), with_payload=False)


def _name(layout: Layout) -> str:
    parts = [f"first {layout.short} values" if layout.short else "", layout.quantization or ""]
    return ", ".join(part for part in parts if part)

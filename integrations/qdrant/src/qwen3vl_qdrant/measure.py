"""Recall, memory and time of a collection's ways of searching, measured on the user's own data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from qwen3vl._deprecation import deprecated_alias
from qwen3vl.stores import Search, Vector
from qwen3vl_qdrant.filters import to_filter
from qwen3vl_qdrant.layout import OVERSAMPLING, SHORT_OVERSAMPLING, SHORT_VECTOR_NAME, Layout, Quantization, truncate
from qwen3vl_qdrant.store import QdrantStore

BITS_PER_VALUE: dict[Quantization | None, float] = {None: 32, "scalar": 8, "turbo": 4, "binary": 1}
"""Size in bits of one value of the vector that finds candidates."""
ToRequest = Callable[[Vector], models.QueryRequest]


@dataclass(frozen=True, slots=True)
class Figure:
    """Measurements of one way of searching.

    Attributes:
        search: The way of searching, in words.
        bytes: Size of the vector that finds candidates, in bytes per point.
        milliseconds: Median time of a query.
        recall: Recall@k against exact search with full vectors, between 0 and 1.
    """

    search: str
    bytes: int
    milliseconds: float
    recall: float

    way = deprecated_alias("Figure", "way", "search")


def measure(
    store: QdrantStore, queries: NDArray[np.float32], k: int = 10, oversampling: Sequence[float] = (1, 2, 4, 8)
) -> list[Figure]:
    """Measure the collection's ways of searching against exact search with full vectors.

    Args:
        store: A store with points.
        queries: (num_queries, dimensions) float32: a hundred or more queries as users ask them. Each is timed alone.
        k: Number of hits per query.
        oversampling: Numbers of candidates per hit to try, besides the default.

    Returns:
        Exact search first, then search by the index, then the ways that the layout adds.

    Raises:
        StoreError: The collection does not exist.
    """
    recipe = store.recipe()
    if recipe is None or store.layout is None:
        raise store.core.missing_error()
    truth: list[set[str]] = []
    figures = []
    for name, size, to_request in _searches(store.layout, recipe.dimensions, k, oversampling):
        results, seconds = _run(store, [to_request(vector) for vector in queries])
        truth = truth or results
        num_found = sum(len(result & expected) for result, expected in zip(results, truth, strict=True))
        recall = num_found / max(1, sum(map(len, truth)))
        figures.append(Figure(name, size, 1000 * float(np.median(seconds)), recall))
    return figures


def table(figures: Sequence[Figure], k: int = 10) -> str:
    """Format figures as a Markdown table.

    Args:
        figures: What `measure` returned.
        k: The `k` of `measure`.

    Returns:
        The table, without a final newline.
    """
    lines = [f"| search | bytes a point | ms a query | recall@{k} |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {figure.search} | {figure.bytes:,} | {figure.milliseconds:.2f} | {figure.recall:.4f} |"
        for figure in figures
    ]
    return "\n".join(lines)


def _searches(
    layout: Layout, dimensions: int, k: int, oversampling: Sequence[float]
) -> list[tuple[str, int, ToRequest]]:
    """Return name, bytes per point and request of each way of searching."""
    ignore_quantization = models.QuantizationSearchParams(ignore=True)
    exact = models.SearchParams(exact=True, quantization=ignore_quantization)
    index = models.SearchParams(quantization=ignore_quantization)
    full_bytes = round(dimensions * BITS_PER_VALUE[None] / 8)
    searches: list[tuple[str, int, ToRequest]] = [
        ("full vectors, exact", full_bytes, partial(_full_request, k=k, params=exact)),
        ("full vectors, index", full_bytes, partial(_full_request, k=k, params=index)),
    ]
    if layout.short is None and layout.quantization is None:
        return searches
    name = _layout_name(layout)
    compact_bytes = round((layout.short or dimensions) * BITS_PER_VALUE[layout.quantization] / 8)
    searches.append((f"{name}, not rescored", compact_bytes, partial(_unrescored_request, layout=layout, k=k)))
    default = SHORT_OVERSAMPLING if layout.short else OVERSAMPLING[layout.quantization or "scalar"]
    for factor in sorted({*oversampling, default}):
        suffix = " (default)" if factor == default else ""
        to_request = partial(_rescored_request, layout=layout, k=k, factor=factor)
        searches.append((f"{name}, x{factor:g} rescored{suffix}", compact_bytes, to_request))
    return searches


def _run(store: QdrantStore, requests: Sequence[models.QueryRequest]) -> tuple[list[set[str]], list[float]]:
    """Return the ids that each request finds, and the seconds it takes."""
    results, seconds = [], []
    for request in requests:
        if store.tenant is not None:
            tenant_filter = to_filter(request.filter, store.tenant)
            prefetch: Any = request.prefetch
            prefetch = prefetch and prefetch.model_copy(update={"filter": tenant_filter})
            request = request.model_copy(update={"filter": tenant_filter, "prefetch": prefetch})
        start = time.perf_counter()
        (response,) = store.client.query_batch_points(store.collection, [request])
        seconds.append(time.perf_counter() - start)
        results.append({str(point.id) for point in response.points})
    return results, seconds


def _full_request(
    vector: Vector, *, k: int, params: models.SearchParams, using: str | None = None
) -> models.QueryRequest:
    return models.QueryRequest(query=vector.tolist(), using=using, limit=k, params=params, with_payload=False)


def _unrescored_request(vector: Vector, *, layout: Layout, k: int) -> models.QueryRequest:
    params = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=False))
    if layout.short is None:
        return _full_request(vector, k=k, params=params)
    return _full_request(truncate(vector, layout.short), k=k, params=params, using=SHORT_VECTOR_NAME)


def _rescored_request(vector: Vector, *, layout: Layout, k: int, factor: float) -> models.QueryRequest:
    return models.QueryRequest(**layout.query_arguments(Search(vector, k), None, factor), with_payload=False)


def _layout_name(layout: Layout) -> str:
    parts = [f"first {layout.short} values" if layout.short else "", layout.quantization or ""]
    return ", ".join(part for part in parts if part)

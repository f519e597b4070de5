"""Two-stage and quantised search on Qdrant's own engine: what the layout asks for finds what exact search finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import Layout, QdrantStore, measure
from qwen3vl_qdrant.measure import table

from qwen3vl import Document, RecipeError
from qwen3vl.stores import Point
from tests.support.fake_embedder import recipe
from tests.support.qdrant_edge_client import EdgeClient

DIMENSIONS, COUNT = 128, 6000


@pytest.fixture(scope="module")
def cloud() -> np.ndarray:
    """Vectors of a Matryoshka shape: clusters, and values that matter less the later they come.

    The first quarter of them carries nine tenths of what is told.
    """
    random = np.random.default_rng(3)
    scale = np.arange(1, DIMENSIONS + 1) ** -0.75
    centres = random.standard_normal((300, DIMENSIONS))
    drawn = centres[random.integers(0, 300, COUNT + 200)] + 0.6 * random.standard_normal((COUNT + 200, DIMENSIONS))
    drawn = (drawn * scale).astype(np.float32)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float32)


def filled(folder: Path, layout: Layout, vectors: np.ndarray) -> QdrantStore:
    client: Any = EdgeClient(folder)
    store = QdrantStore(client, layout=layout)
    made = recipe(dimensions=DIMENSIONS)
    store.create(made)
    documents = [Document(f"{number}.png", "picture", image=f"{number}.png") for number in range(len(vectors))]
    store.upsert([Point(store.point_id(each, made), row, each) for each, row in zip(documents, vectors, strict=True)])
    assert client.index() >= len(vectors)
    assert store.count() == len(vectors)
    return store


@pytest.mark.parametrize(
    ("layout", "least"),
    [
        (Layout(), 0.99),
        (Layout(quantization="scalar"), 0.99),
        (Layout(quantization="turbo"), 0.99),
        (Layout(quantization="binary"), 0.75),
        (Layout(short=DIMENSIONS // 4), 0.99),
        (Layout(short=DIMENSIONS // 4, quantization="scalar"), 0.98),
    ],
    ids=str,
)
def test_rescoring_finds_what_exact_search_finds(
    tmp_path: Path, cloud: np.ndarray, layout: Layout, least: float
) -> None:
    store = filled(tmp_path / "shard", layout, cloud[:COUNT])
    queries = cloud[COUNT:]
    figures = measure(store, queries)
    default = figures[1] if layout == Layout() else next(each for each in figures if "default" in each.way)
    assert figures[0].recall == 1
    assert default.recall >= least, table(figures)
    if layout != Layout():
        unscored = next(each for each in figures if "not rescored" in each.way)
        assert unscored.recall < default.recall
        assert default.bytes <= figures[0].bytes / 4
    # The store's own search is that default, and its scores are those of the full vectors.
    hits = store.search(queries[0], 10)
    exact = cloud[:COUNT] @ queries[0]
    best = {f"{number}.png" for number in np.argsort(-exact)[:10]}
    assert len({hit.document.source for hit in hits} & best) >= (6 if layout.quantization == "binary" else 9)
    for hit in hits:
        assert hit.score == pytest.approx(exact[int(hit.document.source[:-4])], abs=1e-4)


def test_a_layout_is_taken_from_the_collection_or_held_against_it() -> None:
    client = QdrantClient(":memory:")
    QdrantStore(client, layout=Layout(short=8)).create(recipe())
    again = QdrantStore(client)
    again.create(recipe())
    assert again.layout == Layout(short=8)
    with pytest.raises(RecipeError, match="short is 8, and 16"):
        QdrantStore(client, layout=Layout(short=16)).create(recipe())
    with pytest.raises(RecipeError, match="short is 8, and None"):
        QdrantStore(client, layout=Layout()).recipe()


def test_a_collection_that_does_not_fit_its_recipe() -> None:
    client = QdrantClient(":memory:")
    told = {"qwen3vl_recipe": recipe().to_dict()}
    for params, field in (
        (models.VectorParams(size=8, distance=models.Distance.COSINE), "size"),
        (models.VectorParams(size=32, distance=models.Distance.DOT), "distance"),
    ):
        client.create_collection(field, params, metadata=told)
        with pytest.raises(RecipeError, match=field):
            QdrantStore(client, field).recipe()


def test_layouts_that_cannot_be() -> None:
    for wrong in ({"short": 0}, {"quantization": "gzip"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Layout(**wrong)
    with pytest.raises(ValueError, match="must be less than"):
        QdrantStore(QdrantClient(":memory:"), layout=Layout(short=32)).create(recipe())


def test_what_a_server_is_asked_for() -> None:
    """Tenants get an index of their own; quantised vectors stay in memory."""
    made = Layout(quantization="scalar", tenants=True).create(64)
    assert made["hnsw_config"] == models.HnswConfigDiff(m=0, payload_m=16)
    assert made["vectors_config"].quantization_config.scalar.always_ram
    assert [len(vector) for vector in Layout(short=8).vectors(np.ones(32, np.float32)).values()] == [32, 8]

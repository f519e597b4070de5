"""Two-stage and quantized search with Qdrant's own engine finds what exact search finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import Layout, QdrantEdgeStore, QdrantStore, measure
from qwen3vl_qdrant.measure import table

from qwen3vl import Document, RecipeError
from qwen3vl.stores import Point
from tests.support.fake_embedder import fake_recipe

DIMENSIONS, COUNT = 128, 6000


@pytest.fixture(scope="module")
def dataset() -> np.ndarray:
    """Clustered vectors as Matryoshka training gives them: later values matter less.

    The first quarter of the values has nine tenths of the variance.
    """
    random = np.random.default_rng(3)
    scale = np.arange(1, DIMENSIONS + 1) ** -0.75
    centers = random.standard_normal((300, DIMENSIONS))
    samples = centers[random.integers(0, 300, COUNT + 200)] + 0.6 * random.standard_normal((COUNT + 200, DIMENSIONS))
    samples = (samples * scale).astype(np.float32)
    return np.asarray(samples / np.linalg.norm(samples, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(autouse=True)
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the index even where a scan of so few vectors would be faster."""
    # Kilobytes of vectors: of the segments that get an index, and below which a search is a scan.
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)
    hnsw = models.HnswConfig(m=16, ef_construct=100, full_scan_threshold=1)
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.DEFAULT_HNSW", hnsw)


def filled_store(folder: Path, layout: Layout, vectors: np.ndarray) -> QdrantEdgeStore:
    store = QdrantEdgeStore(folder, layout=layout)
    recipe = fake_recipe(dimensions=DIMENSIONS)
    store.create(recipe)
    documents = [Document(f"{number}.png", "picture", image=f"{number}.png") for number in range(len(vectors))]
    store.upsert(
        [
            Point(store.point_id(document, recipe), vector, document)
            for document, vector in zip(documents, vectors, strict=True)
        ]
    )
    store.build_index()
    assert (store.client.get_collection(store.collection).indexed_vectors_count or 0) >= len(vectors)
    assert store.count() == len(vectors)
    return store


@pytest.mark.parametrize(
    ("layout", "min_recall"),
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
    tmp_path: Path, dataset: np.ndarray, layout: Layout, min_recall: float
) -> None:
    store = filled_store(tmp_path / "shard", layout, dataset[:COUNT])
    queries = dataset[COUNT:]
    figures = measure(store, queries)
    default = figures[1] if layout == Layout() else next(figure for figure in figures if "default" in figure.search)
    assert figures[0].recall == 1
    assert default.recall >= min_recall, table(figures)
    if layout != Layout():
        unrescored = next(figure for figure in figures if "not rescored" in figure.search)
        assert unrescored.recall < default.recall
        assert default.bytes <= figures[0].bytes / 4
    # The store searches with the default, and its scores are those of the full vectors.
    hits = store.search(queries[0], 10)
    exact = dataset[:COUNT] @ queries[0]
    best = {f"{number}.png" for number in np.argsort(-exact)[:10]}
    assert len({hit.document.source for hit in hits} & best) >= (6 if layout.quantization == "binary" else 9)
    for hit in hits:
        assert hit.score == pytest.approx(exact[int(hit.document.source[:-4])], abs=1e-4)


def test_layout_is_taken_from_the_collection_or_must_equal_it() -> None:
    client = QdrantClient(":memory:")
    QdrantStore(client, layout=Layout(short=8)).create(fake_recipe())
    reopened = QdrantStore(client)
    reopened.create(fake_recipe())
    assert reopened.layout == Layout(short=8)
    with pytest.raises(RecipeError, match="short is 8, and 16"):
        QdrantStore(client, layout=Layout(short=16)).create(fake_recipe())
    with pytest.raises(RecipeError, match="short is 8, and None"):
        QdrantStore(client, layout=Layout()).recipe()


def test_a_collection_that_does_not_fit_its_fake_recipe() -> None:
    client = QdrantClient(":memory:")
    metadata = {"qwen3vl_recipe": fake_recipe().to_dict()}
    for params, field in (
        (models.VectorParams(size=8, distance=models.Distance.COSINE), "size"),
        (models.VectorParams(size=32, distance=models.Distance.DOT), "distance"),
    ):
        client.create_collection(field, params, metadata=metadata)
        with pytest.raises(RecipeError, match=field):
            QdrantStore(client, field).recipe()


def test_invalid_layouts_are_value_errors() -> None:
    for invalid in ({"short": 0}, {"quantization": "gzip"}):
        with pytest.raises(ValueError, match=next(iter(invalid))):
            Layout(**invalid)
    with pytest.raises(ValueError, match="must be less than"):
        QdrantStore(QdrantClient(":memory:"), layout=Layout(short=32)).create(fake_recipe())


def test_collection_has_an_index_per_tenant_and_quantized_vectors_in_memory() -> None:
    arguments = Layout(quantization="scalar", tenants=True).collection_arguments(64)
    assert arguments["hnsw_config"] == models.HnswConfigDiff(m=0, payload_m=16)
    assert arguments["vectors_config"].quantization_config.scalar.always_ram
    vectors = Layout(short=8).to_vectors(np.ones(32, np.float32), Document("a.txt", "text", text="a"))
    assert [len(vector) for vector in vectors.values()] == [32, 8]

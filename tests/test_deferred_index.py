"""The HNSW graph of a collection on a Qdrant server is switched off while many points are written, and on as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import Layout, QdrantStore

from qwen3vl import ingest
from tests.support import qdrant_rest
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, passages

NAME = "graphs"


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    with qdrant_rest.serve() as port:
        yield QdrantClient(url=f"http://127.0.0.1:{port}", check_compatibility=False)


def set_m(client: QdrantClient, m: int) -> None:
    client.update_collection(NAME, hnsw_config=models.HnswConfigDiff(m=m))


def get_m(client: QdrantClient) -> int | None:
    return client.get_collection(NAME).config.hnsw_config.m


@pytest.mark.parametrize("m", [16, 64])
def test_former_m_is_restored_by_another_process(client: QdrantClient, m: int) -> None:
    store = QdrantStore(client, NAME)
    store.create(fake_recipe())
    set_m(client, m)
    metadata = client.get_collection(NAME).config.metadata
    store.defer_index()
    QdrantStore(client, NAME).defer_index()  # as each worker does
    assert get_m(client) == 0
    assert ingest(passages(5), FakeEmbedder(), QdrantStore(client, NAME)).added == 5  # it builds the index at its end
    assert get_m(client) == m
    assert client.get_collection(NAME).config.metadata == metadata


@pytest.mark.parametrize("layout", [Layout(), Layout(tenants=True)])
def test_collection_without_a_graph_keeps_none(client: QdrantClient, layout: Layout) -> None:
    store = QdrantStore(client, NAME, layout=layout)
    store.create(fake_recipe())
    set_m(client, 0)
    store.defer_index()
    store.build_index()
    assert get_m(client) == 0


def test_graph_stays_if_other_tenants_have_points(client: QdrantClient) -> None:
    ingest(passages(5), FakeEmbedder(), QdrantStore(client, NAME, layout=Layout(), tenant="ann"))
    set_m(client, 16)
    QdrantStore(client, NAME, tenant="bob").defer_index()
    assert get_m(client) == 16


def test_m_that_was_set_meanwhile_stays(client: QdrantClient) -> None:
    store = QdrantStore(client, NAME)
    store.create(fake_recipe())
    store.defer_index()
    set_m(client, 32)
    store.build_index()
    assert get_m(client) == 32
    set_m(client, 0)  # the operator's choice: `defer_index` has nothing to restore any more
    store.build_index()
    assert get_m(client) == 0

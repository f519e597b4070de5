"""The clients over a folder of Qdrant Edge: lifetime, index, event loops, collections and what is refused."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.client_base import QdrantBase
from qwen3vl_qdrant import AsyncQdrantStore, QdrantEdgeStore, QdrantStore, async_edge_client, edge_client
from qwen3vl_qdrant.edge.client import AsyncEdgeClient, EdgeClient

from qwen3vl import Report, StoreError, aingest, ingest
from tests.support.edge_points import NAME, PLAIN, QUERY, contents, fill, point
from tests.support.fake_embedder import FakeEmbedder, passages, query_vector


@pytest.fixture(autouse=True)
def small_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edge builds an index of 100 kilobytes of vectors already."""
    monkeypatch.setattr("qwen3vl_qdrant.edge.configs.INDEXING_THRESHOLD_KB", 100)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EdgeClient]:
    with edge_client(tmp_path / "library") as client:
        fill(client)
        yield client


def test_collections_are_described(client: EdgeClient) -> None:
    assert client.collection_exists(NAME)
    assert not client.collection_exists("other")
    info = client.get_collection(NAME)
    assert (info.points_count, info.config.params.vectors) == (50, PLAIN)
    assert info.payload_schema["number"].data_type == models.PayloadSchemaType.INTEGER
    client.delete_payload_index(NAME, "number")
    assert "number" not in client.get_collection(NAME).payload_schema
    with pytest.raises(ValueError, match="'points' already exists"):
        client.create_collection(NAME, PLAIN)
    with pytest.raises(ValueError, match="'other' not found"):
        client.count("other")
    assert not client.delete_collection("other")
    copy = QdrantClient(":memory:")
    client.migrate(copy)
    assert contents(copy) == contents(client)


@pytest.mark.parametrize(
    "schema",
    [
        models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
        models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True),
        models.FloatIndexParams(type=models.FloatIndexType.FLOAT, on_disk=True),
        models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME),
        models.TextIndexParams(
            type=models.TextIndexType.TEXT, tokenizer=models.TokenizerType.WORD, min_token_len=2, lowercase=True
        ),
        models.PayloadSchemaType.BOOL,
        "uuid",
    ],
)
def test_payload_index_of_each_kind(client: EdgeClient, schema: Any) -> None:
    client.create_payload_index(NAME, "key", schema)
    name = getattr(schema, "type", schema)
    assert client.get_collection(NAME).payload_schema["key"].data_type == models.PayloadSchemaType(name)


def test_full_text_filter_uses_the_words_of_its_index(client: EdgeClient) -> None:
    client.create_payload_index(NAME, "text", models.TextIndexParams(type=models.TextIndexType.TEXT, lowercase=True))
    client.set_payload(NAME, {"text": "The red LIGHTHOUSE"}, [4])
    words = models.Filter(must=[models.FieldCondition(key="text", match=models.MatchText(text="lighthouse"))])
    assert [record.id for record in client.scroll(NAME, words)[0]] == [4]


def test_dates_are_compared_and_ordered(client: EdgeClient) -> None:
    client.create_payload_index(NAME, "day", models.PayloadSchemaType.DATETIME)
    for number in range(1, 5):
        client.set_payload(NAME, {"day": f"2024-03-0{number}T00:00:00Z"}, [number])
    start = models.OrderBy(key="day", start_from=datetime(2024, 3, 3))
    assert [record.id for record in client.scroll(NAME, order_by=start)[0]] == [3, 4]


REFUSED: dict[str, tuple[str, Callable[[EdgeClient], Any]]] = {
    "snapshot": ("create_snapshot", lambda client: client.create_snapshot(NAME)),
    "aliases": ("get_aliases", lambda client: client.get_aliases()),
    "update": ("update_collection", lambda client: client.update_collection(NAME)),
    "shard key": ("create_shard_key", lambda client: client.create_shard_key(NAME, "a")),
    "matrix": ("search_matrix_pairs", lambda client: client.search_matrix_pairs(NAME)),
    "shard of points": ("shard_key_selector", lambda client: client.upsert(NAME, [point(1)], shard_key_selector="a")),
    "shard of queried points": (
        "shard_key",
        lambda client: client.query_batch_points(NAME, [models.QueryRequest(query=QUERY, shard_key="a")]),
    ),
    "shard of deleted points": (
        "shard_key",
        lambda client: client.delete(NAME, models.PointIdsList(points=[1], shard_key="a")),
    ),
    "shard of filtered points": (
        "shard_key",
        lambda client: client.set_payload(
            NAME, {}, models.FilterSelector(filter=models.Filter(must=[]), shard_key="a")
        ),
    ),
    "sparse type": (
        "sparse float32",
        lambda client: client.create_collection(
            "small",
            sparse_vectors_config={
                "words": models.SparseVectorParams(index=models.SparseIndexParams(datatype=models.Datatype.FLOAT16))
            },
        ),
    ),
    "formula": (
        "FormulaQuery",
        lambda client: client.query_points(NAME, models.FormulaQuery(formula=models.MultExpression(mult=[1.0]))),
    ),
    "lookup": (
        "lookup_from",
        lambda client: client.query_points(NAME, 1, lookup_from=models.LookupLocation(collection=NAME)),
    ),
    "multivectors": (
        "multivectors",
        lambda client: client.create_collection(
            "multi",
            PLAIN.model_copy(
                update={"multivector_config": models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)}
            ),
        ),
    ),
    "stop words": (
        "stopwords",
        lambda client: client.create_payload_index(
            NAME, "a", models.TextIndexParams(type=models.TextIndexType.TEXT, stopwords=models.Language.ENGLISH)
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_edge_lacks_is_refused_by_name(client: EdgeClient, name: str) -> None:
    word, call = REFUSED[name]
    with pytest.raises(NotImplementedError, match=rf"{word}.*server"):
        call(client)


@pytest.mark.parametrize("name", ["http", "grpc_points", "grpc_collections"])
async def test_connections_to_a_server_are_refused_with_the_way_out(
    client: EdgeClient, tmp_path: Path, name: str
) -> None:
    async with async_edge_client(tmp_path / "library") as async_client:
        for each in (client, async_client):
            with pytest.raises(
                NotImplementedError, match=rf"no client\.{name}, because .* without a server: .*QdrantClient\(url="
            ):
                getattr(each, name)


def test_every_method_of_the_client_is_defined_or_refused(client: EdgeClient) -> None:
    for name, method in inspect.getmembers(QdrantBase, inspect.isfunction):
        if not name.startswith("_"):
            assert getattr(type(client.backend), name) is not method, name


def test_client_closes_its_folder_with_the_last_user(tmp_path: Path) -> None:
    with edge_client(tmp_path) as client:
        fill(client)
        store = QdrantEdgeStore(tmp_path)
    with pytest.raises(RuntimeError, match="is closed"):
        client.count(NAME)
    client.close()
    assert store.client.count(NAME).count == 50
    again = type(client)(**client.init_options)
    assert again.backend.folder.num_users == 2
    del again
    gc.collect()
    assert store.core.client.folder.num_users == 1


def test_folder_of_local_mode_is_not_opened_as_another(tmp_path: Path) -> None:
    local = QdrantClient(path=str(tmp_path / "store"))
    local.create_collection(NAME, PLAIN)
    local.close()
    for open_client in (edge_client, async_edge_client):
        with pytest.raises(StoreError, match=r"made by qdrant-client's local mode.*qwen3vl copy"):
            open_client(tmp_path / "store")


def test_client_builds_the_index_when_asked_and_when_many_points_have_come(
    client: EdgeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 32
    client.create_collection("large", models.VectorParams(size=size, distance=models.Distance.COSINE))
    vectors = np.random.default_rng(1).standard_normal((2800, size)).astype(np.float32)
    client.upload_collection("large", vectors[:1300], ids=range(1300), batch_size=500)
    assert client.get_collection("large").indexed_vectors_count == 0
    seconds: list[float] = []
    assert client.build_index("large", seconds.append)
    assert client.get_collection("large").indexed_vectors_count == 1300
    assert seconds
    assert not client.build_index("large")
    monkeypatch.setattr("qwen3vl_qdrant.edge.points_backend.MIN_INDEXED_POINTS", 1400)
    client.upload_collection("large", vectors[1300:], ids=range(1300, 2800), batch_size=500)
    assert client.get_collection("large").indexed_vectors_count == 2800
    assert client.query_points("large", vectors[2000], limit=1).points[0].id == 2000


def test_settings_of_the_graph_reach_the_engine(client: EdgeClient, tmp_path: Path) -> None:
    scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
    int8 = PLAIN.model_copy(
        update={"quantization_config": models.ScalarQuantization(scalar=scalar), "memory": models.Memory.CACHED}
    )
    hnsw = models.HnswConfigDiff(m=8, memory=models.Memory.COLD, inline_storage=True)
    client.create_collection("graph", int8, hnsw_config=hnsw)
    stored = json.loads((tmp_path / "library" / "collections" / "graph" / "shard" / "edge_config.json").read_text())
    assert stored["hnsw_config"].items() >= {"m": 8, "memory": "cold", "inline_storage": True}.items()
    assert stored["vectors"][""]["memory"] == "cached"
    described = client.get_collection("graph").config.hnsw_config
    assert (described.m, described.memory, described.inline_storage) == (8, models.Memory.COLD, True)


async def test_async_client_shares_the_folder_and_does_not_block_the_event_loop(
    client: EdgeClient, tmp_path: Path
) -> None:
    async with async_edge_client(tmp_path / "library") as async_client:
        assert isinstance(async_client, AsyncQdrantClient)
        assert (await async_client.count(NAME)).count == 50
        await async_client.upsert(NAME, [point(55)])
        assert client.count(NAME).count == 51
        async_client.upload_points(NAME, [point(56)])
        answers = await asyncio.gather(*(async_client.query_points(NAME, number, limit=2) for number in range(20)))
        assert [len(answer.points) for answer in answers] == [2] * 20
        assert (await async_client.query_points(NAME, QUERY)).points == client.query_points(NAME, QUERY).points
        assert not await async_client.build_index(NAME)
        with client.backend.folder.open(NAME)._lock:
            waiting = asyncio.create_task(async_client.count(NAME))
            start = time.monotonic()
            await asyncio.sleep(0.05)
            assert not waiting.done()
            assert time.monotonic() - start < 1
        assert (await waiting).count == 52
        with pytest.raises(NotImplementedError, match="create_snapshot"):
            await async_client.create_snapshot(NAME)
        with pytest.raises(ValueError, match="'other' not found"):
            await async_client.count("other")
        again = AsyncEdgeClient(**client.init_options)
        await again.close()
    with pytest.raises(RuntimeError, match="is closed"):
        await async_client.count(NAME)
    assert client.count(NAME).count == 52


async def test_stores_of_the_clients_read_and_write_one_collection(tmp_path: Path) -> None:
    documents = passages(20)
    store = QdrantStore(edge_client(tmp_path))
    assert ingest(documents[:10], FakeEmbedder(), store).added == 10
    async_store = AsyncQdrantStore(async_edge_client(tmp_path))
    assert (await aingest(documents, FakeEmbedder(), async_store)).added == 10
    edge_store = QdrantEdgeStore(tmp_path)
    for document in documents:
        vector = query_vector(document)
        hits = [store.search(vector, 1)[0], (await async_store.asearch(vector, 1))[0], edge_store.search(vector, 1)[0]]
        assert [hit.document for hit in hits] == [document] * 3
    assert store.count() == edge_store.count() == 20
    await async_store.aclose()
    store.close()
    assert edge_store.count() == 20


@pytest.mark.parametrize("kind", ["blocking", "async"])
def test_ingestion_through_a_client_ends_with_an_index(tmp_path: Path, kind: str) -> None:
    documents = passages(1500)
    seconds: list[float] = []

    def progress(report: Report) -> None:
        seconds.append(report.indexing_s)

    async def work() -> None:
        async with async_edge_client(tmp_path) as client:
            await aingest(documents, FakeEmbedder(), AsyncQdrantStore(client), progress=progress)

    if kind == "async":
        asyncio.run(work())
    else:
        with edge_client(tmp_path) as client:
            ingest(documents, FakeEmbedder(), QdrantStore(client), progress=progress)
    assert seconds[-1] > 0
    with edge_client(tmp_path) as client:
        assert client.get_collection("qwen3vl").indexed_vectors_count == 1500


def test_ids_are_uuids_or_numbers(client: EdgeClient) -> None:
    number = uuid4()
    client.upsert(NAME, [models.PointStruct(id=number.hex, vector=QUERY), models.PointStruct(id=2**63, vector=QUERY)])
    assert {record.id for record in client.retrieve(NAME, [number, 2**63])} == {str(number), 2**63}
    with pytest.raises(ValueError, match="failed to parse passage 1 as UUID"):
        client.upsert(NAME, [models.PointStruct(id="passage 1", vector=QUERY)])

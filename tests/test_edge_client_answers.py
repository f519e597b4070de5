"""The client over a folder of Qdrant Edge answers and changes points as qdrant-client's own local mode does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from qdrant_client import QdrantClient, models
from qwen3vl_qdrant import edge_client
from qwen3vl_qdrant.edge.client import EdgeClient
from qwen3vl_qdrant.edge.queries import to_edge_request

from tests.support.edge_points import LOW, NAME, ODD, PLAIN, QUERY, SIZE, VECTORS, contents, fill, point, rounded

pytestmark = pytest.mark.filterwarnings(
    "ignore:Payload indexes have no effect", "ignore:.recreate_collection", "ignore:Local mode performs exact"
)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[EdgeClient]:
    with edge_client(tmp_path / "library") as client:
        fill(client)
        yield client


@pytest.fixture
def local() -> QdrantClient:
    local = QdrantClient(":memory:")
    fill(local)
    return local


def recommend(strategy: models.RecommendStrategy | None, *negative: Any) -> models.RecommendQuery:
    positive = [3, VECTORS[4].tolist()]
    return models.RecommendQuery(
        recommend=models.RecommendInput(positive=positive, negative=list(negative), strategy=strategy)
    )


PAIR = models.ContextPair(positive=5, negative=VECTORS[6].tolist())
QUERIES: dict[str, dict[str, Any]] = {
    "vector": {"query": QUERY},
    "array": {"query": VECTORS[-1]},
    "id": {"query": 7},
    "id with a filter": {"query": 7, "query_filter": ODD},
    "id as a UUID": {"query": UUID(int=9)},
    "UUID among examples": {"query": models.RecommendQuery(recommend=models.RecommendInput(positive=[UUID(int=9), 3]))},
    "page and threshold": {"query": QUERY, "offset": 3, "score_threshold": 0.1},
    "exact": {"query": QUERY, "search_params": models.SearchParams(exact=True)},
    "no vectors, some payload": {"query": QUERY, "with_payload": ["number", "deep.a"], "with_vectors": True},
    "payload without keys": {"query": QUERY, "with_payload": models.PayloadSelectorExclude(exclude=["deep"])},
    "no query": {"query_filter": ODD},
    "mmr": {"query": models.NearestQuery(nearest=QUERY, mmr=models.Mmr(diversity=0.8, candidates_limit=20))},
    "mmr by default": {"query": models.NearestQuery(nearest=7, mmr=models.Mmr()), "query_filter": LOW},
    "recommend": {"query": recommend(None)},
    "recommend by the average": {"query": recommend(models.RecommendStrategy.AVERAGE_VECTOR, 9, 11)},
    "recommend by the best score": {"query": recommend(models.RecommendStrategy.BEST_SCORE, 9)},
    "recommend by sums": {"query": recommend(models.RecommendStrategy.SUM_SCORES, 9), "query_filter": LOW},
    "discover": {"query": models.DiscoverQuery(discover=models.DiscoverInput(target=2, context=[PAIR]))},
    "context": {"query": models.ContextQuery(context=PAIR), "limit": 3},
    "order": {"query": models.OrderByQuery(order_by=models.OrderBy(key="number", direction=models.Direction.DESC))},
    "fusion": {
        "query": models.FusionQuery(fusion=models.Fusion.RRF),
        "prefetch": [models.Prefetch(query=QUERY, limit=20), models.Prefetch(query=9, filter=LOW, limit=20)],
    },
}


@pytest.mark.parametrize("name", QUERIES)
def test_queries_find_what_local_mode_finds(client: EdgeClient, local: QdrantClient, name: str) -> None:
    for each in (local, client):
        each.upsert(NAME, [models.PointStruct(id=UUID(int=9), vector=VECTORS[55].tolist(), payload={})])
    expected, found = (each.query_points(NAME, **{"limit": 8, **QUERIES[name]}).points for each in (local, client))
    if name in ("context", "fusion"):  # equal scores: their order is free
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)
        return
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    assert len(found) > 3
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-4)
    assert [hit.payload for hit in found] == [hit.payload for hit in expected]
    assert [rounded(hit.vector) for hit in found] == [rounded(hit.vector) for hit in expected]


def test_batches_groups_samples_and_facets(client: EdgeClient, local: QdrantClient) -> None:
    requests = [models.QueryRequest(query=number, limit=3, with_payload=True) for number in (1, 2)]
    batches = [[[hit.id for hit in answer.points] for answer in each.query_batch_points(NAME, requests)]
               for each in (client, local)]  # fmt: skip
    assert batches[0] == batches[1]
    groups = [each.query_points_groups(NAME, "group", QUERY, limit=3, group_size=2).groups for each in (client, local)]
    found, expected = ([(group.id, [hit.id for hit in group.hits]) for group in each] for each in groups)
    assert found == expected
    sample = client.query_points(NAME, models.SampleQuery(sample=models.Sample.RANDOM), limit=5).points
    assert len({hit.id for hit in sample}) == 5
    facets = [each.facet(NAME, "group", facet_filter=LOW, limit=3).hits for each in (client, local)]
    assert facets[0] == facets[1]


SPARSE = "words"


@pytest.mark.parametrize("idf", [None, models.IdfScope.GLOBAL, models.IdfCorpusParams(corpus=LOW)])
def test_rarity_of_words_is_that_of_the_corpus(client: EdgeClient, local: QdrantClient, idf: Any) -> None:
    """Word 1 is rare below 30 and common in the whole collection; word 2 the other way round."""
    words = models.SparseVectorParams(modifier=models.Modifier.IDF)
    scores = []
    for each in (client, local):
        each.create_collection("texts", PLAIN, sparse_vectors_config={SPARSE: words})
        points = []
        for number in range(50):
            word = 2 if number < 28 else 1
            sparse = models.SparseVector(indices=[word, 9], values=[1.0, 0.5])
            points.append(point(number).model_copy(update={"vector": {"": VECTORS[number].tolist(), SPARSE: sparse}}))
        each.upsert("texts", points)
        query = models.SparseVector(indices=[1, 2], values=[1.0, 1.0])
        found = each.query_points("texts", query, using=SPARSE, search_params=models.SearchParams(idf=idf), limit=50)
        scores.append({hit.id: hit.score for hit in found.points})
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert (scores[0][49] > 2 * scores[0][3]) == isinstance(idf, models.IdfCorpusParams)


def test_acorn_is_used_for_filtered_searches(client: EdgeClient) -> None:
    acorn = models.AcornSearchParams(enable=True, max_selectivity=0.3)
    request = models.QueryRequest(query=QUERY, params=models.SearchParams(acorn=acorn))
    params = to_edge_request(request, lambda *_: None).params
    assert params is not None
    assert params.acorn is not None
    assert params.acorn.enable
    assert params.acorn.max_selectivity == pytest.approx(0.3)
    found = client.query_points(NAME, QUERY, query_filter=ODD, search_params=request.params, limit=5).points
    assert found == client.query_points(NAME, QUERY, query_filter=ODD, limit=5).points


@pytest.mark.parametrize(
    "with_payload",
    [
        True,
        False,
        None,
        ["number", "deep.a"],
        [],
        models.PayloadSelectorInclude(include=["deep.b"]),
        models.PayloadSelectorExclude(exclude=["group", "deep.a"]),
    ],
)
def test_groups_have_the_payload_that_was_selected(client: EdgeClient, local: QdrantClient, with_payload: Any) -> None:
    options = {"limit": 3, "group_size": 2, "with_payload": with_payload, "with_vectors": True}
    answers = [each.query_points_groups(NAME, "group", QUERY, **options).groups for each in (client, local)]
    found, expected = (
        [(group.id, [(hit.id, hit.payload, rounded(hit.vector)) for hit in group.hits]) for group in groups]
        for groups in answers
    )
    assert found == expected


def test_scroll_retrieve_and_count(client: EdgeClient, local: QdrantClient) -> None:
    arguments: list[dict[str, Any]] = [
        {"limit": 7},
        {"limit": 7, "offset": 20, "with_vectors": True, "with_payload": False},
        {"limit": 7, "scroll_filter": ODD},
        {"limit": 7, "order_by": "number"},
        {"limit": 7, "order_by": models.OrderBy(key="number", direction=models.Direction.DESC, start_from=20)},
    ]
    for options in arguments:
        (found, next_offset), (expected, expected_offset) = (each.scroll(NAME, **options) for each in (client, local))
        assert [(record.id, record.payload, record.order_value) for record in found] == [
            (record.id, record.payload, record.order_value) for record in expected
        ]
        assert next_offset == expected_offset
    assert [record.id for record in client.retrieve(NAME, [5, 99, 3])] == [5, 3]
    assert client.count(NAME, LOW).count == local.count(NAME, LOW).count == 30
    assert client.count(NAME, exact=False).count == 50
    with pytest.raises(ValueError, match="No range index for `order_by` key: `deep`"):
        client.scroll(NAME, order_by="deep")


CHANGES: dict[str, Callable[[QdrantClient], Any]] = {
    "upsert": lambda client: client.upsert(NAME, [point(3), point(55)]),
    "batch": lambda client: client.upsert(
        NAME, models.Batch(ids=[3, 60], vectors=[[1.0] * SIZE, [2.0] * SIZE], payloads=[{"a": 1}, {}])
    ),
    "insert only": lambda client: client.upsert(
        NAME, [models.PointStruct(id=number, vector=QUERY) for number in (3, 70)],
        update_mode=models.UpdateMode.INSERT_ONLY,
    ),
    "update if": lambda client: client.upsert(
        NAME, [models.PointStruct(id=number, vector=QUERY) for number in (3, 40)], update_filter=LOW
    ),
    "upload points": lambda client: client.upload_points(
        NAME, (point(number) for number in range(40, 60)), batch_size=7, parallel=2, max_retries=1, wait=True
    ),
    "upload nothing": lambda client: client.upload_points(NAME, []),
    "upload arrays": lambda client: client.upload_collection(
        NAME, VECTORS[:5], payload=[{"x": number} for number in range(5)], ids=range(100, 105), batch_size=2
    ),
    "upload rows": lambda client: client.upload_collection(
        NAME, VECTORS[:2].tolist(), ids=[str(UUID(int=9)), 9]
    ),
    "update vectors": lambda client: client.update_vectors(
        NAME, [models.PointVectors(id=number, vector=QUERY) for number in (3, 40)]
    ),
    "update vectors if": lambda client: client.update_vectors(
        NAME, [models.PointVectors(id=number, vector=QUERY) for number in (3, 40)], update_filter=LOW
    ),
    "delete ids": lambda client: client.delete(NAME, [1, 2, 99]),
    "delete a list of ids": lambda client: client.delete(NAME, models.PointIdsList(points=[1, 2])),
    "delete by a filter": lambda client: client.delete(NAME, ODD),
    "delete by a selector": lambda client: client.delete(NAME, models.FilterSelector(filter=ODD)),
    "set payload": lambda client: client.set_payload(NAME, {"odd": "no", "new": [1, {"x": 2}]}, [1, 2]),
    "set payload below a key": lambda client: client.set_payload(NAME, {"b": 5}, ODD, key="deep"),
    "overwrite payload": lambda client: client.overwrite_payload(NAME, {"only": 1}, LOW),
    "delete payload": lambda client: client.delete_payload(NAME, ["odd", "deep.a"], [1, 2]),
    "clear payload": lambda client: client.clear_payload(NAME, ODD),
    "recreate": lambda client: client.recreate_collection(NAME, PLAIN),
    "delete collection": lambda client: client.delete_collection(NAME),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_those_of_local_mode_and_are_kept(
    client: EdgeClient, local: QdrantClient, tmp_path: Path, name: str
) -> None:
    before = contents(local)
    for each in (client, local):
        CHANGES[name](each)
    expected = contents(local)
    assert (expected == before) == (name == "upload nothing")
    assert contents(client) == expected
    client.close()
    with edge_client(tmp_path / "library") as reopened:
        assert contents(reopened) == expected


def test_named_and_sparse_vectors(client: EdgeClient, local: QdrantClient) -> None:
    sparse = models.SparseVector(indices=[1, 5], values=[0.5, 1.0])
    for each in (client, local):
        each.create_collection(
            "named",
            {"a": PLAIN, "b": models.VectorParams(size=2, distance=models.Distance.EUCLID)},
            sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        )
        each.upsert("named", [models.PointStruct(id=1, vector={"a": QUERY, "b": [1.0, 2.0], "words": sparse})])
        each.upsert(
            "named", models.Batch(ids=[2, 3], vectors={"a": VECTORS[:2].tolist(), "b": [[3.0, 4.0], [5.0, 6.0]]})
        )
        columns: Any = {"a": VECTORS[:3], "b": np.ones((3, 2), np.float32)}
        each.upload_collection("named", columns, ids=[4, 5, 6])
        each.update_vectors("named", [models.PointVectors(id=2, vector={"b": [7.0, 8.0], "words": sparse})])
        each.delete_vectors("named", ["b"], [3])
        each.delete_vectors("named", ["b"], models.Filter(must=[models.HasIdCondition(has_id=[4])]))
    assert contents(client) == contents(local)
    found, expected = (
        each.query_points("named", sparse, using="words", with_vectors=["a"]).points for each in (client, local)
    )
    assert [(hit.id, rounded(hit.vector)) for hit in found] == [(hit.id, rounded(hit.vector)) for hit in expected]
    with pytest.raises(ValueError, match="strategy best_score or sum_scores"):
        client.query_points(
            "named", models.RecommendQuery(recommend=models.RecommendInput(positive=[sparse])), using="words"
        )


@pytest.mark.parametrize("schema", [None, models.PayloadSchemaType.KEYWORD])
def test_groups_of_lists_and_of_values_that_are_no_groups(
    schema: models.PayloadSchemaType | None, client: EdgeClient, local: QdrantClient
) -> None:
    order = [hit.id for hit in local.query_points(NAME, QUERY, limit=60).points]
    tags: list[Any] = [*[0.5] * 5, *[True] * 9, *[["a", "b"]] * 9, ["a", "z"], [7, 8], ["b"], ["b", "y"], 9, None]
    if schema is None:
        tags += [["b", 5], [8, "x"]]  # an index knows values of one type only
    for each in (client, local):
        for point_id, tag in zip(order, tags, strict=False):
            each.set_payload(NAME, {"tags": tag}, [point_id])
        if schema is not None:
            each.create_payload_index(NAME, "tags", schema)
    for limit in (1, 2, 3, 4, 6, 20):
        answers = [each.query_points_groups(NAME, "tags", QUERY, limit=limit, group_size=1) for each in (client, local)]
        found, expected = ([(group.id, [hit.id for hit in group.hits]) for group in each.groups] for each in answers)
        assert found == expected
        assert len(found) == min(limit, 7 if schema else 9)

"""`/v1/search`: the hits of the package's retriever, by text, picture, upload and stored point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from qwen3vl_server import SERVER_POLICY, create_app
from qwen3vl_server.library import search

from qwen3vl import Embedder, Reranker, Retriever, open_store
from qwen3vl.stores import Search
from tests.support.engines import embedder_with
from tests.support.library_server import LibraryServer, serve_library
from tests.support.model_server import ModelServer, data_uri
from tests.support.sample_library import STAR


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LibraryServer]:
    with serve_library(tmp_path_factory.mktemp("search"), layout={"hybrid": True}) as library:
        yield library


@pytest.fixture(scope="module")
def retrievers(library: LibraryServer) -> Iterator[dict[bool, Retriever]]:
    with Embedder("tiny", device="cpu") as embedder, Reranker("tiny", device="cpu") as reranker:
        yield {
            False: Retriever(embedder, library.store),
            True: Retriever(embedder, library.store, reranker),
        }


def assert_hits(answer: Any, expected: Any) -> None:
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in expected]
    for hit, other in zip(answer["hits"], expected, strict=True):
        assert hit["score"] == pytest.approx(other.score, abs=1e-5)
        assert hit["rerank_score"] == (
            None if other.rerank_score is None else pytest.approx(other.rerank_score, abs=1e-5)
        )


@pytest.mark.parametrize("rerank", [False, True])
@pytest.mark.parametrize("mode", ["dense", "text", "hybrid", None])
def test_hits_are_those_of_the_retriever(
    library: LibraryServer, retrievers: dict[bool, Retriever], mode: Any, rerank: bool
) -> None:
    text = STAR.caption()
    answer = library.search(text=text, limit=5, mode=mode, rerank=rerank)
    assert_hits(answer, retrievers[rerank].search(text, 5, mode=mode))
    assert (answer["mode"], answer["reranked"]) == (mode or "hybrid", rerank)
    assert [hit["rank"] for hit in answer["hits"]] == list(range(1, len(answer["hits"]) + 1))


def test_pictures_as_data_uris_and_as_files(library: LibraryServer, retrievers: dict[bool, Retriever]) -> None:
    path = library.files / "star.png"
    query = {"image": str(path), "text": "a circle"}
    expected = retrievers[True].search(query, 3, where={"kind": ["picture", "page"]}, mode="dense")
    fields: dict[str, Any] = {"text": "a circle", "limit": 3, "mode": "dense"}
    body = {**fields, "image": data_uri(path), "filter": {"kind": ["picture", "page"]}}
    assert_hits(library.search(**body), expected)
    form = {**fields, "filter": '{"kind": ["picture", "page"]}', "rerank": "true"}
    response = library.server.client.post("/v1/search", data=form, files={"image": ("x.png", path.read_bytes())})
    assert_hits(response.json(), expected)
    clip = library.files / "mover.mp4"
    response = library.server.client.post("/v1/search", files={"video": clip.read_bytes()})
    assert_hits(response.json(), retrievers[True].search({"video": str(clip)}, 10))
    by_vectors = {"rerank": "false"}  # the tiny reranker was never trained with a video as the query
    response = library.server.client.post("/v1/search", data=by_vectors, files={"video": clip.read_bytes()})
    assert response.json()["hits"][0]["source"] == str(clip)


def test_rerank_is_on_where_there_is_a_reranker(tmp_path: Path) -> None:
    with serve_library(tmp_path, reranked=False) as library:
        answer = library.search(text="a star", limit=2)
        assert (answer["reranked"], answer["mode"], answer["hits"][0]["rerank_score"]) == (False, "dense", None)
        assert library.server.client.get("/v1/search").json()["reranker"] is None
        response = library.server.post("/v1/search", {"text": "a star", "rerank": True})
        assert response.status_code == 400
        assert "--reranker MODEL" in response.json()["message"]


def test_what_hits_say(library: LibraryServer) -> None:
    (page,) = library.search(text="slides", limit=1, mode="text", filter={"kind": "page", "page": {"gte": 2}})["hits"]
    assert (page["kind"], page["page"], page["locator"], page["metadata"]["pages"]) == ("page", 2, "page=2", 2)
    assert page["media"].keys() == {"thumbnail", "image"}
    (clip,) = library.search(text="mover", limit=1, mode="text")["hits"]
    assert (clip["kind"], clip["seconds"]) == ("clip", [0, 4])
    assert clip["media"].keys() == {"thumbnail", "video"}
    (note,) = library.search(text="purple triangle", limit=1, mode="text")["hits"]
    assert (note["kind"], note["media"]) == ("text", {})
    assert "purple triangle" in note["text"]
    assert library.server.client.get(f"/v1/documents/{note['id']}").json()["text"] == note["text"]


def test_pages_are_parts_of_one_ranking(library: LibraryServer) -> None:
    for rerank in (False, True):
        ranking = library.search(text="a red star", limit=12, rerank=rerank)["hits"]
        pages = [library.search(text="a red star", limit=4, offset=offset, rerank=rerank) for offset in (0, 4, 8)]
        for name in ("id", "rank"):
            assert [hit[name] for page in pages for hit in page["hits"]] == [hit[name] for hit in ranking]


def test_more_like_this(library: LibraryServer, retrievers: dict[bool, Retriever]) -> None:
    path = library.files / "star.png"
    point_id = library.point("star.png")
    for rerank in (False, True):
        expected = retrievers[rerank].search({"image": str(path)}, 21, mode="dense")
        expected = [hit for hit in expected if hit.id != point_id]
        answer = library.search(like=point_id, limit=6, rerank=rerank)
        assert_hits(answer, expected[:6])
        assert_hits(library.search(like=point_id, limit=3, offset=3, rerank=rerank), expected[3:6])
    kinds = {hit["kind"] for hit in library.search(like=point_id, filter={"kind": "clip"})["hits"]}
    assert kinds == {"clip"}


def test_later_pages_of_more_like_this(library: LibraryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are parts of one ranking, whether the point itself is before them, within them, or not in it at all."""
    monkeypatch.setattr(search, "MAX_LIMIT", 2)
    for name in ("star.png", "mover.mp4"):
        point_id = library.point(name)
        for where in (None, {"kind": "picture"}, {"kind": "text"}):
            query: Any = {"like": point_id, "filter": where, "rerank": False}
            ranking = [hit["id"] for hit in library.search(**query, limit=1000)["hits"]]
            assert point_id not in ranking
            assert ranking
            for offset in (0, 1, 2, 3, len(ranking) - 1, len(ranking)):
                hits = library.search(**query, limit=3, offset=offset)["hits"]
                assert [hit["id"] for hit in hits] == ranking[offset : offset + 3]
                assert [hit["rank"] for hit in hits] == list(range(offset + 1, offset + 1 + len(hits)))


def test_pages_before_the_one_that_is_asked_for_are_not_read(
    library: LibraryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All hits of the largest offset would be a million documents in memory."""
    num_asked: list[int] = []
    asearch_many = library.store.asearch_many

    async def record(searches: Sequence[Search]) -> Any:
        num_asked.extend(search.limit for search in searches)
        return await asearch_many(searches)

    monkeypatch.setattr(library.store, "asearch_many", record)
    point_id = library.point("star.png")
    answer = library.search(like=point_id, limit=1000, offset=10**6, rerank=False)
    assert (answer["hits"], answer["reranked"]) == ([], False)
    assert 0 < max(num_asked) <= 1001


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "text, image or video to search by, or like"),
        ({"text": "a", "like": "b"}, 400, "not both"),
        ({"text": ""}, 400, "text, image or video"),
        ({"like": "no-point"}, 404, "no point 'no-point'"),
        ({"like": "00000000-0000-4000-8000-000000000000"}, 404, "no point"),
        ({"text": "a", "limit": 0}, 400, "limit"),
        ({"text": "a", "limit": 1001}, 400, "limit"),
        ({"text": "a", "limit": 1000, "offset": 5000, "rerank": True}, 422, "6000 hits to be reranked"),
        ({"text": "a", "mode": "fast"}, 400, "mode"),
        ({"image": "data:image/png;base64,AAAA", "mode": "text"}, 400, "there is no text"),
        ({"text": "a", "filter": {"kind": None}}, 400, "cannot be filtered by None"),
        ({"text": "a", "filter": {'a"b': 1}}, 400, "payload paths"),
        ({"text": "a", "filter": {"page": {"gte": float("nan")}}}, 400, "not finite"),
        ({"text": "a", "filter": []}, 400, "filter"),
        ({"text": "\ud800"}, 400, "surrogate"),
        ({"image": "/etc/passwd"}, 400, "the server opens no files"),
        ({"image": "file:///etc/passwd"}, 400, "the server opens no files"),
        ({"image": "http://127.0.0.1/x.png"}, 400, "does not allow URLs"),
        ({"image": "data:image/png;base64,AAAA"}, 400, "query"),
    ],
)
def test_bodies_that_are_errors(library: LibraryServer, body: Any, status: int, message: str) -> None:
    response = library.server.post("/v1/search", body)
    assert response.status_code == status, response.text
    assert message in response.json()["message"]


def test_forms_that_are_errors(library: LibraryServer) -> None:
    client = library.server.client
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\na'
    for content, message in (
        (part, "cut off"),
        (b"no form at all", "no multipart/form-data"),
        (part.replace(b"form-data; name", b"attachment; name") + b"\r\n--x--\r\n", "lacks `Content-Disposition"),
        (part.replace(b'name="text"', b"") + b"\r\n--x--\r\n", "no name"),
        (part.replace(b"text", b"text\xff") + b"\r\n--x--\r\n", "no UTF-8"),
        (part.replace(b"text", b"t" * 10_000) + b"\r\n--x--\r\n", "header size"),
        (part[:-1] + b"\xff\r\n--x--\r\n", "no valid UTF-8"),
        (part.replace(b'"text"', b'"filter"') + b"\r\n--x--\r\n", "no valid JSON"),
        (part.replace(b'"text"', b'"document"; filename="x"') + b"\r\n--x--\r\n", "has no use"),
        (b"".join([part + b"\r\n"] * 1001), "more than 1000 parts"),
    ):
        response = client.post("/v1/search", content=content, headers=head)
        assert response.status_code == (422 if "1000" in message else 400), response.text
        assert message in response.json()["message"]
    response = client.post("/v1/search", content=part, headers={"Content-Type": "multipart/form-data"})
    assert "no boundary" in response.json()["message"]
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        response = client.post("/v1/search", files={"text": (None, "a")}, headers={"Sec-Fetch-Site": site})
        assert response.status_code == status
    response = client.post("/v1/search", content=b'{"text": "a"}', headers={"Content-Type": "text/plain"})
    assert response.status_code == 400  # a page of another site may send it so


def test_failure_of_the_model_is_no_fault_of_the_query(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("/secret/path is broken")

    broken = embedder_with(Path("tiny"), stages={"forward": fail}, policy=SERVER_POLICY)
    with closing(open_store(":memory:")) as store, ModelServer(create_app(embedder=broken, store=store)) as server:
        response = server.post("/v1/search", {"text": "a"})
    assert response.status_code == 500, response.text
    assert "secret" not in response.text
    assert "secret" in caplog.text


def test_documents_of_others_have_texts_as_source_and_locator(tmp_path: Path) -> None:
    """What the page expects: another value in one hit would hide all of them."""
    with serve_library(tmp_path, reranked=False) as library:
        ids = [point.id for point in library.store.scan()][:3]
        odd: list[dict[str, Any]] = [{"source": None}, {"source": 7, "locator": 3}, {"locator": None}]
        for point_id, metadata in zip(ids, odd, strict=True):
            library.store.client.overwrite_payload(
                library.store.collection, {"page_content": "odd", "metadata": metadata}, points=[point_id]
            )
        hits = {hit["id"]: hit for hit in library.search(text="odd", limit=1000)["hits"]}
        found = [(hits[point_id]["source"], hits[point_id]["locator"]) for point_id in ids]
        assert found == [("", ""), ("7", "3"), ("", "")]


def test_what_can_be_searched(library: LibraryServer) -> None:
    answer = library.server.client.get("/v1/search").json()
    assert answer == {
        "points": library.store.count(),
        "embedder": "tiny",
        "reranker": "tiny",
        "modes": ["dense", "hybrid", "text"],
        "uploads": True,
        "max_upload_bytes": 256 * 2**20,
    }
    metrics = library.server.client.get("/metrics").text
    assert 'qwen3vl_requests_total{path="/v1/search",status="200"}' in metrics


def test_head_of_the_page_and_of_media(library: LibraryServer) -> None:
    clip = library.point("mover.mp4")
    for path in ("/", f"/v1/media/{clip}/video"):
        head, get = (library.server.client.request(method, path) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b""), path
        assert int(head.headers["Content-Length"]) == len(get.content) > 0
    assert library.server.client.get("/v1/search").status_code == 200  # over the same connection


def test_store_of_another_model_or_without_an_embedder_is_refused(tmp_path: Path) -> None:
    policy = SERVER_POLICY
    with Reranker("tiny", device="cpu", policy=policy) as reranker, pytest.raises(ValueError, match="pass embedder"):
        create_app(reranker=reranker, store=open_store(":memory:"))
    with Embedder("tiny", device="cpu", policy=policy) as embedder:
        with pytest.raises(ValueError, match="does not allow the folder of uploads"):
            create_app(embedder=embedder, store=open_store(":memory:"), media=tmp_path)
        store = open_store(":memory:")
        with ModelServer(create_app(embedder=embedder, store=store)) as server:
            assert server.answer("/v1/search", {"text": "a"})["hits"] == []  # an empty collection is made
        assert store.recipe() == embedder.recipe
    with Embedder("tiny", device="cpu", policy=policy, dimensions=64) as other:
        outer = FastAPI()  # which does not tell what is mounted that it starts
        outer.mount("/library", create_app(embedder=other, store=store))
        with ModelServer(outer) as server:
            response = server.post("/library/v1/search", {"text": "a"})
    assert response.status_code == 409
    assert "dimensions" in response.json()["message"]

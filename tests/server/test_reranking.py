"""`/rerank`, `/v1/rerank`, `/v2/rerank`, `/score` and `/v1/score`: the scores of the engine, in several dialects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3vl_server import SERVER_POLICY, create_app

from qwen3vl import InputError, Reranker, ServerError
from qwen3vl.engine import engine
from tests.conftest import CASES, REFERENCE, resolve
from tests.support.model_server import ModelServer, as_sent, data_uri

RERANK = [name for name, case in CASES["rerank"].items() if "checkpoint" not in case]


def body_of(name: str, media: dict[str, Path]) -> dict[str, Any]:
    case = CASES["rerank"][name]
    return {
        "query": as_sent(resolve(case["query"], media)),
        "documents": [as_sent(resolve(document, media)) for document in case["documents"]],
        "instruction": case.get("instruction"),
    }


def scores_of(answer: dict[str, Any]) -> list[float]:
    """The scores of a ranking, in the order of the documents."""
    results = answer["results"]
    scores = [result["relevance_score"] for result in results]
    assert scores == sorted(scores, reverse=True)
    return [result["relevance_score"] for result in sorted(results, key=lambda result: result["index"])]


def test_golden_scores_of_concurrent_requests(golden_server: ModelServer, media: dict[str, Path]) -> None:
    paths = ["/rerank", "/v1/rerank", "/v2/rerank"]
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(
            lambda request: scores_of(golden_server.answer(request[1], body_of(request[0], media))),
            [(name, path) for name in RERANK for path in paths],
        )
        for name in RERANK:
            for _ in paths:
                expected = REFERENCE["rerank"][name]["scores"]
                np.testing.assert_allclose(next(answers), expected, atol=1e-5, rtol=0)


def test_scores_of_one_query_and_of_pairs(golden_server: ModelServer, media: dict[str, Path]) -> None:
    body = body_of("text-query-mixed-documents", media)
    expected = REFERENCE["rerank"]["text-query-mixed-documents"]["scores"]
    number = len(body["documents"])
    for queries, names in (
        (body["query"], ("text_1", "text_2")),
        ([body["query"]], ("data_1", "data_2")),
        ([body["query"]] * number, ("queries", "documents")),
    ):
        sent = {names[0]: queries, names[1]: body["documents"], "instruction": body["instruction"]}
        answer = golden_server.answer("/v1/score" if names[0] == "text_1" else "/score", sent)
        assert [score["index"] for score in answer["data"]] == list(range(number))
        scores = [score["score"] for score in answer["data"]]
        np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)


def test_top_n_documents_and_usage(
    golden_server: ModelServer, golden_reranker: Reranker, media: dict[str, Path]
) -> None:
    documents: list[Any] = ["boxes", {"text": "waves"}, {"content": [{"type": "text", "text": "a beach"}], "id": 7}]
    body = {"model": "reranker", "query": "the sea", "documents": documents, "return_documents": True}
    answer = golden_server.answer("/v1/rerank", {**body, "top_n": 2})
    expected = golden_reranker.rank("the sea", ["boxes", "waves", "a beach"])
    assert [result["index"] for result in answer["results"]] == [ranked.index for ranked in expected[:2]]
    shown = [{"text": "boxes"}, *documents[1:]]
    assert all(result["document"] == shown[result["index"]] for result in answer["results"])
    assert len(golden_server.answer("/v1/rerank", {**body, "top_n": 0})["results"]) == 3
    batch = golden_reranker.score("the sea", ["boxes", "waves", "a beach"], on_error="collect")
    assert answer["usage"]["total_tokens"] == batch.num_tokens


def test_parts_of_a_bare_content_are_documents(golden_server: ModelServer, media: dict[str, Path]) -> None:
    """As vLLM has it, and Dify sends it."""
    uri = data_uri(media["photo"])
    content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "sand"}]
    query = {"content": [{"type": "text", "text": "beach"}]}
    answer = golden_server.answer("/v1/rerank", {"query": query, "documents": {"content": content}})
    same = golden_server.answer("/v1/rerank", {"query": "beach", "documents": [{"image": uri}, "sand"]})
    np.testing.assert_allclose(scores_of(answer), scores_of(same), atol=1e-6)
    instruction = {"instruction": "Find maps."}
    answer = golden_server.answer("/v1/rerank", {"query": query, "documents": {"content": content, **instruction}})
    documents = [{"image": uri, **instruction}, {"text": "sand", **instruction}]
    same = golden_server.answer("/v1/rerank", {"query": "beach", "documents": documents})
    np.testing.assert_allclose(scores_of(answer), scores_of(same), atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "message", "param"),
    [
        ("/v1/rerank", {"query": "a"}, 400, "documents: Field required", "documents"),
        ("/v1/rerank", {"query": "a", "documents": []}, 400, "documents is empty", "documents"),
        ("/v1/rerank", {"query": "", "documents": ["a"]}, 400, "the query: it is empty", "query"),
        ("/v1/rerank", {"query": {"image": "data:,x"}, "documents": ["a"]}, 400, "the query (image in a", "query"),
        ("/v1/rerank", {"query": "a", "documents": ["a", ""]}, 400, "item 1 (''): it is empty", "documents[1]"),
        ("/v1/rerank", {"query": "a", "documents": ["a"], "top_n": -1}, 400, "top_n: ", "top_n"),
        ("/v2/rerank", {"query": "a", "documents": ["a"], "model": "x"}, 404, "this server is 'reranker'", "model"),
        ("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", "b", "c"]}, 400, "2 queries and 3 documents", "text_1"),
        ("/v1/score", {"text_1": ["a", ""], "text_2": ["a", "b"]}, 400, "item 1 (''): it is empty", "text_1[1]"),
        (
            *("/v1/score", {"text_1": ["a", {"image": "data:,x"}], "text_2": ["a", "b"]}),
            *(400, "the query (image in a", "text_1[1]"),
        ),
        (
            *("/v1/score", {"text_1": ["a", "b"], "text_2": ["a", {"image": "data:,x"}]}),
            *(400, "item 1 (image in a", "text_2[1]"),
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    golden_server: ModelServer, path: str, body: Any, status: int, message: str, param: str
) -> None:
    response = golden_server.post(path, body)
    assert response.status_code == status, response.text
    answer = response.json()
    assert message in answer["message"]
    assert answer["message"] == answer["detail"] == answer["error"]["message"]
    assert answer["error"]["param"] == param


def test_failure_of_the_server_on_a_query_is_no_fault_of_the_query(
    server: ModelServer, media: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("Too many open files: /secret/path")

    monkeypatch.setattr(engine, "read_headers", fail)
    query = {"image": data_uri(media["photo"])}
    for path, body in (
        ("/v1/rerank", {"query": query, "documents": ["a"]}),
        ("/v1/score", {"text_1": query, "text_2": ["a", "b"]}),
        ("/v1/score", {"text_1": [query, "b"], "text_2": ["a", "b"]}),
        ("/qwen3vl/score", {"query": query, "documents": ["a"]}),
    ):
        caplog.clear()
        response = server.post(path, body)
        assert response.status_code == 500, response.text
        answer = response.json()
        assert answer["error"]["type"] == "server_error"
        assert answer["message"] == answer["detail"] == answer["error"]["message"]
        assert answer["message"] == "the model failed on the query; the log of the server says why"
        assert "secret" in caplog.text
    with Reranker(server.url) as reranker, pytest.raises(ServerError, match="status 500: the model failed on the"):
        reranker.score({"image": media["photo"]}, ["a"])


def test_query_that_a_server_behind_this_one_cannot_use(server: ModelServer) -> None:
    """It stays an error of the query, however many servers pass it on."""
    with (
        Reranker(server.url, policy=SERVER_POLICY) as behind,
        ModelServer(create_app(reranker=behind)) as gateway,
        Reranker(gateway.url) as reranker,
    ):
        response = gateway.post("/v1/rerank", {"query": {"image": "data:image/png;base64,AAAA"}, "documents": ["a"]})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "query")
        with pytest.raises(InputError, match="the query"):
            reranker.score({"image": b"no image"}, ["a"])

"""`/qwen3vl/embed`, `/qwen3vl/score` and `/qwen3vl/models`: batches with errors, notices and recipe, as in process."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from qwen3vl import Embedder, Reranker
from qwen3vl.recipe import Recipe
from qwen3vl.wire import MEDIA_TYPE, digest_of, encode_request
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer, data_uri


def values_of(answer: dict[str, Any]) -> Any:
    return np.frombuffer(base64.b64decode(answer["values"]), dtype="<f4").reshape(answer["shape"])


def test_batch_of_vectors(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    broken = f"data:image/png;base64,{base64.b64encode(media['photo'].read_bytes()[:2000]).decode()}"
    sent: list[Any] = [
        "a",
        "",
        {"image": broken},
        {"image": "/etc/passwd"},
        {"image": data_uri(media["photo"])},
        "word " * 9000,
    ]
    answer = tiny_server.answer("/qwen3vl/embed", {"inputs": sent, "instruction": "Find it.", "dimensions": 16})
    with Embedder("tiny", device="cpu", dimensions=16) as embedder:
        kept = [0, 4, 5]
        local_inputs = [sent[0], {"image": media["photo"]}, sent[5]]
        local = embedder.embed(local_inputs, instruction="Find it.", on_error="collect")
        assert_close(values_of(answer)[kept], local.values)
        assert Recipe.from_dict(answer["recipe"]).digest == embedder.recipe.digest
    assert np.isnan(values_of(answer)[1:4]).all()
    assert [(error["index"], error["type"]) for error in answer["errors"]] == [
        *((1, "InputError"), (2, "MediaError"), (3, "InputError")),
    ]
    assert "the server opens no files" in answer["errors"][2]["reason"]
    assert list(answer["notices"]) == ["5"]
    assert answer["num_tokens"] == local.num_tokens


def test_batch_of_scores(tiny_server: ModelServer, tiny_reranker: Reranker) -> None:
    answer = tiny_server.answer("/qwen3vl/score", {"query": "red", "documents": ["a red circle", "", "blue"]})
    batch = tiny_reranker.score("red", ["a red circle", "", "blue"], on_error="collect")
    assert_close(values_of(answer), batch.values)
    assert [error["index"] for error in answer["errors"]] == [1]
    assert tiny_server.post("/qwen3vl/score", {"query": "", "documents": ["a"]}).status_code == 400


def send(server: ModelServer, body: bytes) -> Any:
    """Send a request with contents behind its JSON."""
    return server.client.post("/qwen3vl/embed", content=body, headers={"Content-Type": MEDIA_TYPE})


def test_contents_behind_the_json(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    photo, clip = media["photo"].read_bytes(), media["clip"].read_bytes()
    digests = digest_of(photo), digest_of(clip)
    body = {"inputs": [{"image": {"content": digests[0]}}, {"video": {"content": digests[1], "start": 1, "end": 3.5}}]}
    missing = tiny_server.post("/qwen3vl/embed", body)
    assert missing.status_code == 409
    assert missing.json()["error"] | {"message": ""} == {
        "message": "",
        "type": "invalid_request_error",
        "param": None,
        "code": "missing_contents",
        "missing": list(digests),
    }
    answer = send(tiny_server, encode_request(json.dumps(body), [photo, clip])).json()
    assert_close(values_of(answer), tiny_embedder.embed([media["photo"], {"video": f"{media['clip']}#t=1,3.5"}]))
    body["inputs"].append({"video": [[{"content": digests[0]}] * 3], "image": data_uri(media["square"]), "text": "all"})
    answer = tiny_server.answer("/qwen3vl/embed", body)  # the contents are there
    assert not answer["errors"]
    assert answer["digest"] == tiny_embedder.recipe.digest


def test_references_that_cannot_be_used(tiny_server: ModelServer, media: dict[str, Path]) -> None:
    photo = media["photo"].read_bytes()
    digest = digest_of(photo)
    wrong: list[Any] = [
        {"image": {"content": digest, "page": 0}},
        {"image": {"content": digest, "start": 1}},
        {"video": {"content": digest, "start": -1}},
        {"video": {"content": digest, "end": "3"}},
        {"video": [{"content": digest}, "/etc/passwd"]},
        {"video": [[{"content": digest}, {"content": 3}]]},
        {"image": [{"content": digest}, [{"content": digest}]]},
        {"image": {"content": digest}, "instruction": 3},
    ]
    answer = send(tiny_server, encode_request(json.dumps({"inputs": [*wrong, "a text"]}), [photo])).json()
    assert [error["index"] for error in answer["errors"]] == list(range(len(wrong)))
    reasons = [error["reason"] for error in answer["errors"]]
    assert "greater than or equal to 1" in reasons[0]
    assert "start: Extra inputs are not permitted; a reference to a content is" in reasons[1]
    assert "the server opens no files" in reasons[4]


def test_bodies_that_are_no_requests(tiny_server: ModelServer) -> None:
    body = encode_request('{"inputs": ["a"]}', [b"content"])
    bodies = [b"", b"{}", b"[]", b"{", b"\xff", body[:-1], body + b"x"]
    for wrong in (*bodies, b'{"contents": [-1]}\n', b'{"contents": 3}\n'):
        response = send(tiny_server, wrong)
        assert response.status_code == 400, response.text
        assert MEDIA_TYPE in response.json()["message"] or "inputs" in response.json()["message"]
    assert send(tiny_server, body).status_code == 200
    response = tiny_server.client.post(
        "/qwen3vl/embed", content=b'{"inputs": ["a"]}', headers={"Content-Type": "text/plain"}
    )
    assert response.status_code == 400


def test_recipe_and_instruction_of_the_models(
    tiny_server: ModelServer, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    models = tiny_server.client.get("/qwen3vl/models").json()
    assert models["embedder"]["digest"] == tiny_embedder.recipe.digest
    assert models["embedder"]["recipe"]["model"] == models["embedder"]["name"] == "embedding"
    assert models["reranker"]["digest"] == tiny_reranker.recipe.digest
    assert models["reranker"]["recipe"]["weights"] == tiny_reranker.engine.fingerprint
    assert models["limits"]["max_items"] == 2048

"""`/qwen3vl/embed`, `/qwen3vl/score` and `/qwen3vl/models`: batches with errors, notices and recipe, as in process."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from qwen3vl import Embedder, Reranker
from qwen3vl.recipe import Recipe
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


def test_recipe_and_instruction_of_the_models(
    tiny_server: ModelServer, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    models = tiny_server.client.get("/qwen3vl/models").json()
    assert models["embedder"]["digest"] == tiny_embedder.recipe.digest
    assert models["embedder"]["recipe"]["model"] == models["embedder"]["name"] == "embedding"
    assert models["reranker"]["digest"] == tiny_reranker.recipe.digest
    assert models["reranker"]["recipe"]["weights"] == tiny_reranker.engine.fingerprint
    assert models["limits"]["max_items"] == 2048

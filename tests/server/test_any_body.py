"""Whatever a client sends, the answer is a result or an error of the client, never a failure of the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE

from tests.support.model_server import ModelServer

KEYS = st.sampled_from(
    [
        *("text", "image", "video", "instruction", "fps", "max_frames", "content", "type", "role", "messages"),
        *("image_url", "video_url", "image_base64", "url", "x", "page", "start"),
    ]
)
WORDS = st.sampled_from(
    [
        *("", "a", "\ud800", "\x00", "text", "image_url", "image_base64", "user", "system", "assistant"),
        *("query", "document", "binary", "base64", "NONE", "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQ"),
        *(EXAMPLE_IMAGE, "data:", "data:,", "//", "#page=0"),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=12,
)
FIELDS = {
    "/v1/embeddings": (
        *("input", "messages", "dimensions", "output_dimension", "encoding_format", "instruction", "model"),
        *("input_type", "task", "output_dtype", "truncation", "embedding_type", "late_chunking"),
    ),
    "/v1/multimodalembeddings": ("inputs", "input_type", "output_dimension", "output_dtype", "encoding_format"),
    "/v2/embed": ("texts", "images", "inputs", "input_type", "embedding_types", "output_dimension", "truncate"),
    "/v1/embed": ("texts", "images", "inputs", "embedding_types", "truncate"),
    "/v1/rerank": ("query", "documents", "top_n", "top_k", "truncation", "return_documents", "instruction"),
    "/v1/score": ("text_1", "text_2", "queries", "items", "instruction"),
    "/qwen3vl/embed": ("inputs", "dimensions"),
    "/qwen3vl/score": ("query", "documents"),
}
REQUESTS = st.sampled_from(sorted(FIELDS)).flatmap(
    lambda path: st.tuples(st.just(path), VALUES | st.dictionaries(st.sampled_from(FIELDS[path]), VALUES, max_size=3))
)


@settings(
    max_examples=500, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(request=REQUESTS)
def test_no_body_makes_the_server_fail(tiny_server: ModelServer, request: tuple[str, Any]) -> None:
    path, body = request
    response = tiny_server.post(path, body)
    assert response.status_code in (200, 400, 404, 409), (response.status_code, response.text)
    if response.status_code != 200:
        assert response.json()["error"]["message"]


def test_nested_and_huge_json(tiny_server: ModelServer) -> None:
    bodies = [
        b"[" * 100_000,
        b'{"input": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        b'{"dimensions": ' + b"9" * 5_000 + b"}",
    ]
    for body in bodies:
        response = tiny_server.client.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 400, response.text


@pytest.mark.parametrize(
    "item",
    [
        {"text": "a", "fps": 10**400},
        {"image": "file://[a/b.png"},
        {"video": ["http://[a/b.mp4"]},
        {"image": f"data:application/pdf;base64,JVBERi0=#page={'9' * 5_000}"},
    ],
)
def test_values_that_python_cannot_convert(tiny_server: ModelServer, item: Any) -> None:
    for path, body in (
        ("/v1/embeddings", {"input": [item]}),
        ("/v1/rerank", {"query": item, "documents": ["a"]}),
        ("/qwen3vl/score", {"query": "a", "documents": [item]}),
    ):
        response = tiny_server.post(path, body)
        if path == "/qwen3vl/score":
            assert response.status_code == 200, response.text
            assert [error["index"] for error in response.json()["errors"]] == [0]
        else:
            assert response.status_code == 400, response.text

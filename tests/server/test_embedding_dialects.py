"""`/v2/embed`, `/v1/multimodalembeddings` and what Voyage and Jina add to `/v1/embeddings`."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app
from qwen3vl_server.dialects.quantization import VectorType, quantize_vectors

from qwen3vl import Embedder
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer, data_uri

TEXTS = ["a red circle", "ein blauer Stern", "日本語"]
TYPES: list[VectorType] = ["float", "int8", "uint8", "binary", "ubinary"]
QUERY, DOCUMENT = "Find what the text asks for.", "Describe the picture."
LONG = "word " * 9000


@pytest.fixture(scope="module")
def instructed_server() -> Iterator[ModelServer]:
    """A server that has instructions for queries and documents."""
    settings = ServerSettings(query_instruction=QUERY, document_instruction=DOCUMENT)
    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    with embedder, ModelServer(create_app(embedder=embedder, settings=settings)) as server:
        yield server


def test_cohere_inputs_in_all_forms(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    uri = data_uri(media["photo"])
    image, text = {"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "caption"}
    expected: list[tuple[dict[str, Any], list[Any]]] = [
        ({"texts": TEXTS}, TEXTS),
        ({"images": [uri, uri], "input_type": "image"}, [{"image": media["photo"]}] * 2),
        (
            {"inputs": [{"content": [text, image]}, {"content": [text]}, {"content": "caption"}]},
            [{"image": media["photo"], "text": "caption"}, "caption", "caption"],
        ),
    ]
    for body, inputs in expected:
        answer = tiny_server.answer("/v2/embed", {"model": "embedding", **body})
        batch = tiny_embedder.embed(inputs, on_error="collect")
        assert list(answer["embeddings"]) == ["float"]
        assert_close(answer["embeddings"]["float"], batch.values)
        assert answer["texts"] == body.get("texts")
        assert answer["meta"]["billed_units"] == {"input_tokens": batch.num_tokens}
        assert answer["response_type"] == "embeddings_by_type"


def test_cohere_embedding_types(tiny_server: ModelServer) -> None:
    body = {"texts": TEXTS, "embedding_types": [*TYPES, "base64", "float"], "output_dimension": 64}
    embeddings = tiny_server.answer("/v2/embed", body)["embeddings"]
    assert list(embeddings) == [*TYPES, "base64"]
    vectors = np.array(embeddings["float"], dtype=np.float32)
    with Embedder("tiny", device="cpu", dimensions=64) as embedder:
        assert_close(vectors, embedder.embed(TEXTS))
    for vector_type in TYPES:
        assert embeddings[vector_type] == quantize_vectors(vectors, vector_type).tolist()
    decoded = [np.frombuffer(base64.b64decode(vector), dtype="<f4") for vector in embeddings["base64"]]
    np.testing.assert_array_equal(decoded, vectors)


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/multimodalembeddings"])
@pytest.mark.parametrize("vector_type", TYPES)
def test_voyage_types_and_encodings(tiny_server: ModelServer, path: str, vector_type: VectorType) -> None:
    inputs = {"input": TEXTS} if path == "/v1/embeddings" else {"inputs": [{"content": [text]} for text in TEXTS]}
    body = {**inputs, "output_dimension": 64, "truncation": True}
    vectors = [data["embedding"] for data in tiny_server.answer(path, body)["data"]]
    expected = quantize_vectors(np.array(vectors, dtype=np.float32), vector_type)
    body["output_dtype"] = vector_type
    answer = tiny_server.answer(path, body)
    assert [data["index"] for data in answer["data"]] == [0, 1, 2]
    # Rounding depends on what else is in a batch, and a value may be next to the border of two integers.
    atol = {"float": 5e-6, "int8": 1, "uint8": 1}.get(vector_type, 0)
    embeddings = np.array([data["embedding"] for data in answer["data"]])
    assert embeddings.dtype.kind == ("f" if vector_type == "float" else "i")
    np.testing.assert_allclose(embeddings, expected.astype(np.float64), atol=atol, rtol=0)
    answer = tiny_server.answer(path, {**body, "encoding_format": "base64"})
    decoded = [np.frombuffer(base64.b64decode(data["embedding"]), dtype=expected.dtype) for data in answer["data"]]
    np.testing.assert_allclose(np.array(decoded, dtype=np.float64), expected.astype(np.float64), atol=atol, rtol=0)


def test_voyage_inputs_in_all_forms(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    photo, clip = data_uri(media["photo"]), data_uri(media["clip"])
    parts: list[dict[str, str]] = [
        {"type": "image_base64", "image_base64": photo},
        {"type": "image_url", "image_url": photo},
        {"type": "video_base64", "video_base64": clip},
        {"type": "video_url", "video_url": clip},
        {"type": "text", "text": "caption"},
    ]
    body = {"inputs": [{"content": [part]} for part in parts] + [{"content": [parts[0], parts[4]]}], "model": None}
    answer = tiny_server.answer("/v1/multimodalembeddings", body)
    image, video = {"image": media["photo"]}, {"video": media["clip"]}
    batch = tiny_embedder.embed(
        [image, image, video, video, "caption", {**image, "text": "caption"}], on_error="collect"
    )
    assert_close([data["embedding"] for data in answer["data"]], batch.values)
    assert answer["usage"]["total_tokens"] == batch.num_tokens


def test_data_uri_of_an_image_is_that_image_in_the_dialect_of_jina(
    tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]
) -> None:
    uri = data_uri(media["photo"])
    texts = [
        "data:image/png;base64,",
        "data:image/png;base64,aGVsbG8gd29ybGQsIHRoaXMgaXMgbm8gaW1hZ2UgYXQgYWxs",
        uri[5:80],
    ]
    answer = tiny_server.answer("/v1/embeddings", {"input": [uri, *texts]})
    expected = tiny_embedder.embed([{"image": media["photo"]}, *texts])
    assert_close([data["embedding"] for data in answer["data"]], expected)
    (data,) = tiny_server.answer("/v1/embeddings", {"input": uri})["data"]
    assert_close(data["embedding"], expected[0])
    broken = tiny_server.post("/v1/embeddings", {"input": ["fine", uri[: len(uri) // 8 * 4 + 2]]})
    assert broken.status_code == 400
    assert broken.json()["error"]["param"] == "input[1]"


@pytest.mark.parametrize(
    ("path", "field", "value", "instruction"),
    [
        ("/v1/embeddings", "input_type", "query", QUERY),
        ("/v1/embeddings", "input_type", "document", DOCUMENT),
        ("/v1/embeddings", "input_type", "passage", DOCUMENT),
        ("/v1/embeddings", "input_type", None, None),
        ("/v1/embeddings", "task", "retrieval.query", QUERY),
        ("/v1/embeddings", "task", "retrieval.passage", DOCUMENT),
        ("/v1/embeddings", "task", "text-matching", None),
        ("/v1/multimodalembeddings", "input_type", "query", QUERY),
        ("/v1/multimodalembeddings", "input_type", "document", DOCUMENT),
        ("/v2/embed", "input_type", "search_query", QUERY),
        ("/v2/embed", "input_type", "search_document", DOCUMENT),
        ("/v2/embed", "input_type", "image", DOCUMENT),
        ("/v2/embed", "input_type", "classification", None),
        ("/v2/embed", "input_type", "clustering", None),
    ],
)
def test_roles_have_their_instructions(
    instructed_server: ModelServer,
    tiny_embedder: Embedder,
    path: str,
    field: str,
    value: str | None,
    instruction: str | None,
) -> None:
    own = {"text": "a circle", "instruction": "An own one."}
    names = {"/v1/embeddings": "input", "/v1/multimodalembeddings": "inputs", "/v2/embed": "inputs"}
    body = {names[path]: ["a circle", own], field: value}

    def vectors_of(body: dict[str, Any]) -> Any:
        answer = instructed_server.answer(path, body)
        return answer["embeddings"]["float"] if path == "/v2/embed" else [row["embedding"] for row in answer["data"]]

    assert_close(vectors_of(body), tiny_embedder.embed(["a circle", own], instruction=instruction))
    sent = {**body, "instruction": "Sent with it."}
    assert_close(vectors_of(sent), tiny_embedder.embed(["a circle", own], instruction="Sent with it."))


def test_queries_have_the_instruction_of_documents_by_default(tiny_embedder: Embedder) -> None:
    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    for settings, instruction in (
        (ServerSettings(document_instruction=DOCUMENT), DOCUMENT),
        (ServerSettings(), None),
    ):
        with ModelServer(create_app(embedder=embedder, settings=settings)) as server:
            (data,) = server.answer("/v1/embeddings", {"input": "a circle", "input_type": "query"})["data"]
            assert_close(data["embedding"], tiny_embedder.embed("a circle", instruction=instruction)[0])
    embedder.close()


@pytest.mark.parametrize(
    ("path", "body", "message", "param"),
    [
        ("/v2/embed", {}, "one of texts, images and inputs", "texts"),
        ("/v2/embed", {"texts": ["a"], "images": ["data:,"]}, "one of texts, images and inputs", "texts"),
        ("/v2/embed", {"texts": []}, "texts is empty", "texts"),
        ("/v2/embed", {"texts": ["a", ""]}, "item 1 (''): it is empty", "texts[1]"),
        ("/v2/embed", {"texts": [{"text": "a"}]}, "texts.0: ", "texts.0"),
        ("/v2/embed", {"images": ["photo.png"]}, "the server opens no files", "images[0]"),
        ("/v2/embed", {"inputs": [{"content": [{"type": "audio"}]}]}, "whose type is one of", "inputs[0]"),
        ("/v2/embed", {"texts": ["a"], "input_type": "search"}, "input_type: ", "input_type"),
        ("/v2/embed", {"texts": ["a"], "embedding_types": ["int4"]}, "embedding_types.0", None),
        (
            "/v2/embed",
            {"texts": ["a"], "embedding_types": ["ubinary"], "output_dimension": 12},
            "a multiple of eight",
            None,
        ),
        ("/v2/embed", {"texts": ["a"], "output_dimension": 4096}, "vectors of 1 to 128 values", "dimensions"),
        ("/v2/embed", {"texts": ["a"], "truncate": "START"}, "send END or NONE", "truncate"),
        ("/v2/embed", {"texts": ["a", LONG], "truncate": "NONE"}, "it is too long: its text was cut", "texts[1]"),
        ("/v1/embeddings", {"input": ["a", LONG], "truncation": False}, "it is too long", "input[1]"),
        ("/v1/embeddings", {"input": "a", "task": "search"}, "task: ", "task"),
        ("/v1/embeddings", {"input": "a", "embedding_type": "binary"}, "embedding_type is binary", "embedding_type"),
        (
            *("/v1/embeddings", {"input": "a", "embedding_type": ["float", "ubinary"]}),
            *("only float is supported", "embedding_type"),
        ),
        ("/v1/embeddings", {"input": "a", "late_chunking": True}, "late_chunking is not supported", "late_chunking"),
        ("/v1/embeddings", {"input": "a", "output_dtype": "binary", "dimensions": 12}, "a multiple of eight", None),
        (
            "/v1/multimodalembeddings",
            {"inputs": [{"content": [LONG]}], "truncation": False},
            "it is too long",
            "inputs[0]",
        ),
        ("/v1/multimodalembeddings", {"inputs": []}, "inputs is empty", "inputs"),
        ("/v1/multimodalembeddings", {}, "inputs: Field required", "inputs"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    tiny_server: ModelServer, path: str, body: dict[str, Any], message: str, param: str | None
) -> None:
    response = tiny_server.post(path, body)
    assert response.status_code == 400, response.text
    answer = response.json()
    assert message in answer["message"]
    assert answer["message"] == answer["detail"] == answer["error"]["message"]
    assert param is None or answer["error"]["param"] == param


def test_fields_of_jina_that_change_nothing(tiny_server: ModelServer, tiny_embedder: Embedder) -> None:
    for kind in ("float", ["float"], None):
        answer = tiny_server.answer("/v1/embeddings", {"input": TEXTS, "embedding_type": kind, "late_chunking": False})
        assert_close([data["embedding"] for data in answer["data"]], tiny_embedder.embed(TEXTS))


def test_inputs_that_are_too_long_are_cut_unless_that_is_refused(
    tiny_server: ModelServer, tiny_embedder: Embedder
) -> None:
    expected = tiny_embedder.embed(["a", LONG])
    for body in ({}, {"truncate": "END"}, {"truncate": None}):
        answer = tiny_server.answer("/v2/embed", {"texts": ["a", LONG], **body})
        assert_close(answer["embeddings"]["float"], expected)
    assert tiny_server.post("/v2/embed", {"texts": ["a"], "truncate": "NONE"}).status_code == 200

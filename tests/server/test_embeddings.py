"""`/v1/embeddings`: the vectors of the engine, for every form of input, and clear refusals of others."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Embedder
from tests.conftest import CASES, resolve
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer, as_sent, data_uri
from tests.test_golden import check

EMBED = list(CASES["embed"])


def vectors_of(answer: dict[str, Any]) -> Any:
    assert [data["index"] for data in answer["data"]] == list(range(len(answer["data"])))
    return np.array([data["embedding"] for data in answer["data"]], dtype=np.float32)


def test_golden_vectors_of_one_request(golden_server: ModelServer, media: dict[str, Path]) -> None:
    inputs = [as_sent(resolve(CASES["embed"][name], media)) for name in EMBED]
    answer = golden_server.answer("/v1/embeddings", {"model": "embedding", "input": inputs})
    for name, vector in zip(EMBED, vectors_of(answer), strict=True):
        check(name, vector)
    assert answer["model"] == "embedding"


def test_golden_vectors_of_concurrent_requests(golden_server: ModelServer, media: dict[str, Path]) -> None:
    def embed(name: str) -> Any:
        body = {"input": as_sent(resolve(CASES["embed"][name], media)), "encoding_format": "base64"}
        (data,) = golden_server.answer("/v1/embeddings", body)["data"]
        return np.frombuffer(base64.b64decode(data["embedding"]), dtype="<f4")

    with ThreadPoolExecutor(8) as threads:
        for name, vector in zip(EMBED, threads.map(embed, EMBED), strict=True):
            check(name, vector)


def test_dimensions_and_usage_are_those_of_the_engine(
    golden_server: ModelServer, golden_embedder: Embedder, checkpoints: Path
) -> None:
    texts = ["a red circle", "ein blauer Stern"]
    answer = golden_server.answer("/v1/embeddings", {"input": texts, "dimensions": 24, "instruction": "Find shapes"})
    short = Embedder(checkpoints / "embedding", device="cpu", dimensions=24)
    assert_close(vectors_of(answer), short.embed(texts, instruction="Find shapes"))
    batch = golden_embedder.embed(texts, instruction="Find shapes", on_error="collect")
    assert answer["usage"] == {"prompt_tokens": batch.num_tokens, "total_tokens": batch.num_tokens}


def test_all_forms_of_an_input_have_the_same_vector(
    golden_server: ModelServer, golden_embedder: Embedder, media: dict[str, Path]
) -> None:
    uri, clip = data_uri(media["photo"]), data_uri(media["clip"])
    expected = golden_embedder.embed(
        {"image": media["photo"], "video": media["clip"], "text": "caption", "instruction": "Find photos."}
    )[0]
    parts = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "video_url", "video_url": {"url": clip.replace("video/mp4", "application/octet-stream")}},
        {"type": "text", "text": "caption"},
    ]
    # As Dify's openai_api_compatible plugin sends it, with fields that this server does not need.
    chat = [
        {"role": "system", "content": [{"type": "text", "text": "Find photos."}]},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "text", "text": ""}]},
    ]
    bodies = [
        {"input": {"image": uri, "video": clip, "text": "caption", "instruction": "Find photos."}},
        {"input": [{"content": parts, "instruction": "Find photos."}]},
        {"messages": chat, "continue_final_message": True, "add_special_tokens": True},
        {"messages": [chat]},
        {"input": chat},
        {"input": [{"messages": chat}]},
        {"input": [{"role": "user", "content": [{"type": "image", "image": uri}, "caption", parts[1]]}],
         "instruction": "Find photos."},
    ]  # fmt: skip
    for body in bodies:
        (vector,) = vectors_of(golden_server.answer("/v1/embeddings", body))
        assert_close(vector, expected)
    (vector,) = vectors_of(golden_server.answer("/v1/embeddings", {"input": [parts[0]]}))
    assert_close(vector, golden_embedder.embed({"image": media["photo"]})[0])


def test_base64_of_an_image_without_a_data_uri(tiny_server: ModelServer, media: dict[str, Path]) -> None:
    uri = data_uri(media["photo"])
    encoded = uri.partition(",")[2]
    forms = [
        {"image": uri},
        {"image": encoded},
        {"image": [encoded]},
        {"content": [{"type": "image_base64", "image_base64": encoded}]},
        {"content": [{"type": "image_url", "image_url": {"url": encoded}}]},
    ]
    first, *others = vectors_of(tiny_server.answer("/v1/embeddings", {"input": forms}))
    for vector in others:
        assert_close(vector, first)


def test_instruction_and_frames_of_all_forms(
    tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]
) -> None:
    clip = data_uri(media["clip"])
    frames: dict[str, Any] = {"fps": 1.0, "max_frames": 4}
    beside: dict[str, Any] = {"instruction": "Find clips.", **frames}
    part = {"type": "video_url", "video_url": {"url": clip}}
    system = {"role": "system", "content": "Find clips."}
    forms: list[Any] = [
        {"video": clip, **beside},
        {"content": [part], **beside},
        {"content": [{**part, **frames}], "instruction": "Find clips."},
        {"content": [{"type": "video", "video": clip, "max_frames": 4}], **beside},
        {**part, **beside},
        {"role": "user", "content": [part], **beside},
        {"messages": [{"role": "user", "content": [part]}], **beside},
        {"messages": [system, {"role": "user", "content": [{**part, **frames}]}]},
        {"messages": [system, {"role": "user", "content": [part]}], **frames},
    ]
    expected, default = tiny_embedder.embed([{"video": media["clip"], **beside}, {"video": media["clip"]}])
    assert expected @ default < 0.999
    for vector in vectors_of(tiny_server.answer("/v1/embeddings", {"input": forms})):
        assert_close(vector, expected)


@pytest.mark.parametrize(
    "value",
    [
        {"image": "A" * 10**6},
        {"image": ["https://example.com/" + "A" * 10**6]},
        {"text": "a caption", "A" * 10**6: 1},
        {"video": "a.mp4", "fps": ["A" * 10**6]},
        {"content": [{"type": "image_base64", "image_base64": "A" * 10**6}]},
    ],
    ids=["image", "URL", "key", "fps", "part"],
)
def test_messages_do_not_repeat_what_was_uploaded(tiny_server: ModelServer, value: Any) -> None:
    response = tiny_server.post("/v1/embeddings", {"input": [value]})
    assert response.status_code == 400
    assert len(response.text) < 20_000
    (error,) = tiny_server.answer("/qwen3vl/embed", {"inputs": [value]})["errors"]
    assert len(error["reason"]) + len(error["source"]) < 10_000


@pytest.mark.parametrize(
    ("body", "status", "message", "param"),
    [
        ({"input": [1, 2, 3]}, 400, "check_embedding_ctx_length=False", "input"),
        ({"input": [[1, 2], [3]]}, 400, "check_embedding_ctx_length=False", "input"),
        ({}, 400, "either input or messages", "input"),
        ({"input": "a", "messages": []}, 400, "either input or messages", "input"),
        ({"input": []}, 400, "input is empty", "input"),
        ({"messages": []}, 400, "messages is empty", "messages"),
        ({"input": ["a", "", 5]}, 400, "item 1 (''): it is empty", "input[1]"),
        ({"input": ["a", {"picture": "x"}]}, 400, "unknown key 'picture'", "input[1]"),
        ({"input": {"image": "data:image/png;base64,AAAA"}}, 400, "item 0 (image in a data URI", "input[0]"),
        ({"input": {"image": "data:image/png"}}, 400, "no comma", "input[0]"),
        ({"input": "a", "dimensions": 0}, 400, "vectors of 1 to", "dimensions"),
        ({"input": "a", "dimensions": "many"}, 400, "dimensions: ", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, 400, "encoding_format: ", "encoding_format"),
        ({"input": "a", "model": "gpt"}, 404, "the embedder of this server is 'embedding'", "model"),
        ({"input": "a" * 3, "instruction": "\ud800"}, 400, "lone surrogate", "instruction"),
        ({"input": ["\ud800"]}, 400, "lone surrogate", "input[0]"),
        ({"input": {"image": "\ud800"}}, 400, "the name of a file", "input[0]"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "the role of a message", "messages[0]"),
        ({"messages": [{"role": ["user"]}]}, 400, "the role of a message", "messages[0]"),
        ({"input": {"type": ["text"]}}, 400, "whose type is one of", "input[0]"),
        ({"messages": [{"role": "user"}]}, 400, "a content is a text or a list", "messages[0]"),
        ({"messages": [{"role": "user", "content": "x"}] * 2}, 400, "has 2 of the user", "messages[0]"),
        (
            {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
            *(400, "must be empty", "messages[0]"),
        ),
        ({"input": [{"content": "a", "image": "b"}]}, 400, "image is beside content", "input[0]"),
        ({"input": [{"messages": [], "text": "a"}]}, 400, "text is beside messages", "input[0]"),
        ({"input": [{"content": "a", "fps": "many"}]}, 400, "'fps' must be a positive number", "input[0]"),
        (
            {"input": [{"content": [{"type": "video", "video": "", "fps": 2}], "fps": 1}]},
            *(400, "fps is 1 in one place of the input and 2 in another", "input[0]"),
        ),
        (
            {"input": [{"messages": [{"role": "system", "content": "a"}, {"role": "user"}], "instruction": "b"}]},
            *(400, "instruction is 'b' in one place of the input and 'a' in another", "input[0]"),
        ),
        ({"input": [{"content": [{"type": "input_audio"}]}]}, 400, "whose type is one of", "input[0]"),
        ({"input": [{"content": [{"type": "image_url"}]}]}, 400, "has no image_url", "input[0]"),
        ("text", 400, "the body is not as", None),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    golden_server: ModelServer, body: Any, status: int, message: str, param: str | None
) -> None:
    response = golden_server.post("/v1/embeddings", body)
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert message in error["message"]
    assert error["param"] == param
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


@pytest.mark.parametrize(
    "reference",
    [
        *(
            "file:///etc/passwd",
            "/etc/passwd",
            "../secret.png",
            "\\\\host\\share\\x.png",
            "~/x.png",
            "ftp://host/x.png",
        ),
        *("http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/x.png", "https://example.com/x.png"),
        *("HTTP://[::1]/x.png", "FILE://localhost/etc/passwd", ""),
    ],
)
def test_references_to_files_and_addresses_are_refused(golden_server: ModelServer, reference: str) -> None:
    part = {"type": "image_url", "image_url": {"url": reference}}
    inputs: list[Any] = [
        {"image": reference},
        {"video": reference},
        {"video": [reference, reference]},
        {"content": [part]},
        {"content": [{"type": "video_url", "video_url": reference}]},
    ]
    for value in inputs:
        response = golden_server.post("/v1/embeddings", {"input": ["fine", value]})
        assert response.status_code == 400, (value, response.text)
        assert response.json()["error"]["param"] == "input[1]"
        for path in ("/v1/rerank", "/v1/score"):
            for body in ({"query": value, "documents": ["a"]}, {"query": "a", "documents": [value]}):
                body = {"text_1": body["query"], "text_2": [*body["documents"]]} if path == "/v1/score" else body
                assert golden_server.post(path, body).status_code == 400, (path, body)

"""The requests of applications that are no Python packages, as their source makes them.

Dify: `models/openai_api_compatible` of langgenius/dify-official-plugins, 080687b for embeddings and 225e44d for
reranking, and `OAICompatRerankModel` of its plugin SDK. Open WebUI at 0668cb7: `utils.py` and `models/external.py` in
`backend/open_webui/retrieval`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from qwen3vl import Embedder, Reranker
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer, data_uri

TEXTS = ["a red circle", "ein blauer Stern"]
DOCUMENTS = ["boxes", "waves and sand", "a beach"]
QUERY = "the sea"
DIFY_HEADERS = {"Authorization": ""}  # without a key in its settings


def dify_chat(*parts: dict[str, Any]) -> dict[str, Any]:
    """A request of `create_chat_embeddings` in Dify's plugin, for one input."""
    return {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Represent the user's input."}]},
            {"role": "user", "content": list(parts)},
            {"role": "assistant", "content": [{"type": "text", "text": ""}]},
        ],
        "model": "embedding",
        "encoding_format": "float",
        "continue_final_message": True,
        "add_special_tokens": True,
    }


def scores_of(answer: dict[str, Any]) -> list[float]:
    """The scores in the order of the documents, as Open WebUI reads them."""
    return [result["relevance_score"] for result in sorted(answer["results"], key=lambda result: result["index"])]


def test_dify_embeds_texts(tiny_server: ModelServer, tiny_embedder: Embedder) -> None:
    for body in ({}, {"encoding_format": "float"}):
        response = tiny_server.post("/v1/embeddings", {"model": "embedding", "input": TEXTS, **body}, **DIFY_HEADERS)
        answer = response.json()
        assert_close([data["embedding"] for data in answer["data"]], tiny_embedder.embed(TEXTS))
        assert answer["usage"]["prompt_tokens"] > 0


def test_dify_embeds_images(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    image = {"type": "image_url", "image_url": {"url": data_uri(media["photo"])}}
    for body, value in (
        (dify_chat({"type": "text", "text": "caption"}), "caption"),
        (dify_chat(image, {"type": "text", "text": ""}), {"image": media["photo"]}),
        (dify_chat(image, {"type": "text", "text": "caption"}), {"image": media["photo"], "text": "caption"}),
    ):
        (data,) = tiny_server.answer("/v1/embeddings", body)["data"]
        assert_close(data["embedding"], tiny_embedder.embed([value])[0])


def test_dify_ranks_texts(tiny_server: ModelServer, tiny_reranker: Reranker) -> None:
    expected = tiny_reranker.score(QUERY, DOCUMENTS)
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS}
    assert_close(scores_of(tiny_server.post("/v1/rerank", {**body, "top_n": 3}, **DIFY_HEADERS).json()), expected)
    answer = tiny_server.answer("/v1/rerank", {**body, "top_n": None, "return_documents": True})
    assert_close(scores_of(answer), expected)
    for result in answer["results"]:
        assert result["document"]["text"] == DOCUMENTS[result["index"]]


def test_dify_ranks_images(tiny_server: ModelServer, tiny_reranker: Reranker, media: dict[str, Path]) -> None:
    documents = [
        {"content": [{"type": "image_url", "image_url": {"url": data_uri(media["photo"])}}]},
        {"content": [{"type": "text", "text": "waves and sand"}]},
    ]
    body = {"model": "reranker", "query": QUERY, "documents": documents, "top_n": 2}
    expected = tiny_reranker.score(QUERY, [{"image": media["photo"]}, "waves and sand"])
    assert_close(scores_of(tiny_server.answer("/v1/rerank", body)), expected)


@pytest.mark.parametrize(
    ("prefix", "instruction"),
    [
        ({}, None),
        ({"input_type": "query"}, None),  # RAG_EMBEDDING_PREFIX_FIELD_NAME and RAG_EMBEDDING_QUERY_PREFIX
        ({"instruction": "Find the passage."}, "Find the passage."),
    ],
)
def test_open_webui_embeds_texts(
    tiny_server: ModelServer, tiny_embedder: Embedder, prefix: dict[str, str], instruction: str | None
) -> None:
    headers = {"Authorization": "Bearer none", "X-OpenWebUI-User-Name": "a", "X-OpenWebUI-User-Role": "user"}
    answer = tiny_server.post("/v1/embeddings", {"input": TEXTS, "model": "embedding", **prefix}, **headers).json()
    assert_close([data["embedding"] for data in answer["data"]], tiny_embedder.embed(TEXTS, instruction=instruction))


def test_open_webui_ranks_texts(tiny_server: ModelServer, tiny_reranker: Reranker) -> None:
    body = {"model": "reranker", "query": QUERY, "documents": DOCUMENTS, "top_n": len(DOCUMENTS)}
    assert_close(scores_of(tiny_server.answer("/v1/rerank", body)), tiny_reranker.score(QUERY, DOCUMENTS))

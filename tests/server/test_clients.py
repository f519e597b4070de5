"""Unchanged clients of other services get the engine's vectors and rankings."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from qwen3vl_server.dialects.quantization import quantize_vectors

from qwen3vl import Embedder, Reranker
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer, data_uri

TEXTS = ["a red circle", "ein blauer Stern", "日本語"]
DOCUMENTS = ["boxes", "waves and sand", "a beach"]
QUERY = "the sea"


def test_openai(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{tiny_server.url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["embedding", "reranker"]
        answer = client.embeddings.create(model="embedding", input=TEXTS)  # as base64, which it decodes
        assert_close([data.embedding for data in answer.data], tiny_embedder.embed(TEXTS))
        assert answer.usage.total_tokens > 0
        answer = client.embeddings.create(model="embedding", input=TEXTS[0], dimensions=8, encoding_format="float")
        assert len(answer.data[0].embedding) == 8
        answer = client.embeddings.create(
            model="embedding", input=TEXTS, encoding_format="float", extra_body={"output_dtype": "int8"}
        )
        quantized = quantize_vectors(tiny_embedder.embed(TEXTS), "int8").astype(int)
        assert np.abs(np.array([data.embedding for data in answer.data]) - quantized).max() <= 1
        chat = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_uri(media["photo"])}}]}]
        answer = client.post(
            "/embeddings", cast_to=openai.types.CreateEmbeddingResponse, body={"model": "embedding", "messages": chat}
        )
        assert_close(answer.data[0].embedding, tiny_embedder.embed({"image": media["photo"]})[0])
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
            client.embeddings.create(model="embedding", input=[1, 2, 3])
        assert (caught.value.param, caught.value.code) == ("input", "token_ids")
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.embeddings.create(model="text-embedding-3-small", input="a")


async def test_openai_async(tiny_server: ModelServer, tiny_embedder: Embedder) -> None:
    openai = pytest.importorskip("openai")
    async with openai.AsyncOpenAI(base_url=f"{tiny_server.url}/v1", api_key="none") as client:
        answer = await client.embeddings.create(model="embedding", input=TEXTS)
    assert_close([data.embedding for data in answer.data], tiny_embedder.embed(TEXTS))


def test_langchain_openai(tiny_server: ModelServer, tiny_embedder: Embedder) -> None:
    langchain_openai = pytest.importorskip("langchain_openai")
    embeddings = langchain_openai.OpenAIEmbeddings(
        model="embedding", base_url=f"{tiny_server.url}/v1", api_key="none", check_embedding_ctx_length=False
    )
    assert_close(embeddings.embed_documents(TEXTS), tiny_embedder.embed(TEXTS))
    assert_close(embeddings.embed_query(TEXTS[0]), tiny_embedder.embed(TEXTS[0])[0])


def test_cohere(tiny_server: ModelServer, tiny_reranker: Reranker) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=tiny_server.url)
    answer = client.rerank(model="reranker", query=QUERY, documents=DOCUMENTS, top_n=2)
    expected = tiny_reranker.rank(QUERY, DOCUMENTS)[:2]
    assert [result.index for result in answer.results] == [ranked.index for ranked in expected]
    assert_close([result.relevance_score for result in answer.results], [score for _, score in expected])
    with pytest.raises(cohere.NotFoundError, match="this server is 'reranker'"):
        client.rerank(model="rerank-v3.5", query=QUERY, documents=DOCUMENTS)


def test_cohere_embed(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2(api_key="none", base_url=tiny_server.url)
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = client.embed(model="embedding", texts=TEXTS, input_type="search_document", embedding_types=types)
    vectors = np.array(answer.embeddings.float_, dtype=np.float32)
    assert_close(vectors, tiny_embedder.embed(TEXTS))
    assert answer.embeddings.int8 == quantize_vectors(vectors, "int8").tolist()
    assert answer.embeddings.uint8 == quantize_vectors(vectors, "uint8").tolist()
    assert answer.embeddings.binary == quantize_vectors(vectors, "binary").tolist()
    assert answer.embeddings.ubinary == quantize_vectors(vectors, "ubinary").tolist()
    assert [base64.b64decode(vector) for vector in answer.embeddings.base64] == [row.tobytes() for row in vectors]
    assert answer.texts == TEXTS
    assert answer.meta.billed_units.input_tokens == tiny_embedder.embed(TEXTS, on_error="collect").num_tokens
    uri = data_uri(media["photo"])
    parts = [{"type": "text", "text": "a photo"}, {"type": "image_url", "image_url": {"url": uri}}]
    for sent, local in (
        ({"images": [uri], "input_type": "image"}, {"image": media["photo"]}),
        (
            {"inputs": [{"content": parts}], "input_type": "search_query"},
            {"image": media["photo"], "text": "a photo"},
        ),
    ):
        answer = client.embed(model="embedding", **sent)
        assert_close(answer.embeddings.float_, tiny_embedder.embed([local]))
    with pytest.raises(cohere.BadRequestError, match=r"item 1 \(''\): it is empty"):
        client.embed(model="embedding", texts=["a", ""], input_type="search_document")


async def test_voyage(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    voyageai = pytest.importorskip("voyageai")
    options: dict[str, Any] = {"api_key": "none", "base_url": f"{tiny_server.url}/v1"}
    client = voyageai.Client(**options)
    photo, uri = Image.open(media["photo"]), data_uri(media["photo"])
    inputs = [["a photo", photo], [photo], ["a photo"]]
    batch = tiny_embedder.embed([{"image": photo, "text": "a photo"}, {"image": photo}, "a photo"], on_error="collect")
    answer = client.multimodal_embed(inputs, model="embedding", input_type="document")
    assert_close(answer.embeddings, batch.values)
    assert answer.total_tokens == batch.num_tokens
    answer = await voyageai.AsyncClient(**options).multimodal_embed(inputs, model="embedding", input_type="query")
    assert_close(answer.embeddings, batch.values)
    urls = [{"content": [{"type": "image_url", "image_url": uri}, {"type": "text", "text": "a photo"}]}]
    answer = client.multimodal_embed(urls, model="embedding", output_dimension=16, output_dtype="ubinary")
    with Embedder("tiny", device="cpu", dimensions=16) as embedder:
        expected = embedder.embed([{"image": media["photo"], "text": "a photo"}])
        assert answer.embeddings == quantize_vectors(expected, "ubinary").tolist()
        answer = client.embed(TEXTS, model="embedding", input_type="query", output_dimension=16)
        assert_close(answer.embeddings, embedder.embed(TEXTS))
    with pytest.raises(voyageai.error.InvalidRequestError, match="it is empty"):
        client.embed([""], model="embedding")


async def test_voyage_rerank(tiny_server: ModelServer, tiny_reranker: Reranker) -> None:
    voyageai = pytest.importorskip("voyageai")
    options: dict[str, Any] = {"api_key": "none", "base_url": f"{tiny_server.url}/v1"}
    client = voyageai.Client(**options)
    expected = tiny_reranker.rank(QUERY, DOCUMENTS)
    answer = client.rerank(QUERY, DOCUMENTS, model="reranker")
    assert [result.index for result in answer.results] == [ranked.index for ranked in expected]
    assert [result.document for result in answer.results] == [DOCUMENTS[ranked.index] for ranked in expected]
    assert_close([result.relevance_score for result in answer.results], [score for _, score in expected])
    assert answer.total_tokens == tiny_reranker.score(QUERY, DOCUMENTS, on_error="collect").num_tokens
    answer = await voyageai.AsyncClient(**options).rerank(QUERY, DOCUMENTS, model="reranker", top_k=2)
    assert [result.index for result in answer.results] == [ranked.index for ranked in expected[:2]]
    too_long = [DOCUMENTS[0], "word " * 9000]
    assert len(client.rerank(QUERY, too_long, model="reranker").results) == 2
    with pytest.raises(voyageai.error.InvalidRequestError, match=r"item 1 .* it is too long"):
        client.rerank(QUERY, too_long, model="reranker", truncation=False)


def test_cohere_version_1(tiny_server: ModelServer, tiny_embedder: Embedder, media: dict[str, Path]) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.Client(api_key="none", base_url=tiny_server.url)
    texts = [f"{text} {number}" for number in range(40) for text in TEXTS]  # the client sends two requests
    answer = client.embed(model="embedding", texts=texts, input_type="search_document")
    assert_close(answer.embeddings, tiny_embedder.embed(texts))
    assert answer.texts == texts
    answer = client.embed(model="embedding", images=[data_uri(media["photo"])], input_type="image")
    assert_close(answer.embeddings, tiny_embedder.embed([{"image": media["photo"]}]))
    answer = client.embed(model="embedding", texts=TEXTS, input_type="search_query", embedding_types=["float", "int8"])
    vectors = np.array(answer.embeddings.float_, dtype=np.float32)
    assert_close(vectors, tiny_embedder.embed(TEXTS))
    assert answer.embeddings.int8 == quantize_vectors(vectors, "int8").tolist()
    answer = client.rerank(model="reranker", query=QUERY, documents=DOCUMENTS, top_n=1)
    assert len(answer.results) == 1


async def test_langchain_cohere(tiny_server: ModelServer, tiny_embedder: Embedder, tiny_reranker: Reranker) -> None:
    langchain_cohere = pytest.importorskip("langchain_cohere")
    from langchain_core.documents import Document

    embeddings = langchain_cohere.CohereEmbeddings(
        model="embedding", base_url=tiny_server.url, cohere_api_key="none", truncate="END"
    )
    assert_close(embeddings.embed_documents(TEXTS), tiny_embedder.embed(TEXTS))
    assert_close(await embeddings.aembed_query(QUERY), tiny_embedder.embed(QUERY)[0])
    compressor = langchain_cohere.CohereRerank(
        model="reranker", base_url=tiny_server.url, cohere_api_key="none", top_n=2
    )
    ranked = compressor.compress_documents([Document(text) for text in DOCUMENTS], QUERY)
    expected = tiny_reranker.rank(QUERY, DOCUMENTS)[:2]
    assert [document.page_content for document in ranked] == [DOCUMENTS[index] for index, _ in expected]

"""LlamaIndex's and Haystack's components for OpenAI and Jina, unchanged, get the engine's vectors and rankings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, Reranker
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
TEXTS = ["a red circle", "ein blauer Stern", "日本語"]
DOCUMENTS = ["boxes", "waves and sand", "a beach"]
QUERY = "the sea"
INSTRUCTION = "Find what the text asks for."


@pytest.fixture(scope="module")
def server() -> Iterator[ModelServer]:
    """The tiny models, with an instruction for queries."""
    settings = ServerSettings(embedder_name="embedding", reranker_name="reranker", query_instruction=INSTRUCTION)
    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    app = create_app(embedder=embedder, reranker=reranker, settings=settings)
    with embedder, reranker, ModelServer(app) as model_server:
        yield model_server


async def test_llama_index_embeddings(server: ModelServer, tiny_embedder: Embedder) -> None:
    openai_like = pytest.importorskip("llama_index.embeddings.openai_like")
    options: dict[str, Any] = {"model_name": "embedding", "api_base": f"{server.url}/v1", "api_key": "none"}
    documents = openai_like.OpenAILikeEmbedding(**options)
    assert_close(documents.get_text_embedding_batch(TEXTS), tiny_embedder.embed(TEXTS))
    assert_close(await documents.aget_query_embedding(QUERY), tiny_embedder.embed(QUERY)[0])
    queries = openai_like.OpenAILikeEmbedding(
        **options, dimensions=16, additional_kwargs={"extra_body": {"input_type": "query"}}
    )
    with Embedder("tiny", device="cpu", dimensions=16, instruction=INSTRUCTION) as embedder:
        assert_close(queries.get_query_embedding(QUERY), embedder.embed(QUERY)[0])


def test_llama_index_jina_rerank(server: ModelServer, tiny_reranker: Reranker) -> None:
    jinaai_rerank = pytest.importorskip("llama_index.postprocessor.jinaai_rerank")
    from llama_index.core.schema import NodeWithScore, TextNode

    options: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "none", "top_n": 2}
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in DOCUMENTS]
    ranked = jinaai_rerank.JinaRerank(model="reranker", **options).postprocess_nodes(nodes, query_str=QUERY)
    expected = tiny_reranker.rank(QUERY, DOCUMENTS)[:2]
    assert [node.text for node in ranked] == [DOCUMENTS[index] for index, _ in expected]
    assert_close([node.score for node in ranked], [score for _, score in expected])
    with pytest.raises(RuntimeError, match="the reranker of this server is 'reranker'"):
        jinaai_rerank.JinaRerank(**options).postprocess_nodes(nodes, query_str=QUERY)


def test_haystack_jina(
    server: ModelServer, tiny_embedder: Embedder, tiny_reranker: Reranker, media: dict[str, Path]
) -> None:
    embedders = pytest.importorskip("haystack_integrations.components.embedders.jina")
    rankers = pytest.importorskip("haystack_integrations.components.rankers.jina")
    haystack, utils = pytest.importorskip("haystack"), pytest.importorskip("haystack.utils")

    api_key = utils.Secret.from_token("none")
    embedding: dict[str, Any] = {"model": "embedding", "api_key": api_key, "base_url": f"{server.url}/v1/embeddings"}
    query = embedders.JinaTextEmbedder(**embedding, task="retrieval.query", dimensions=16).run(QUERY)
    with Embedder("tiny", device="cpu", dimensions=16, instruction=INSTRUCTION) as embedder:
        assert_close(query["embedding"], embedder.embed(QUERY)[0])
    documents = [haystack.Document(content=text) for text in DOCUMENTS]
    embedded = embedders.JinaDocumentEmbedder(**embedding, task="retrieval.passage", progress_bar=False).run(documents)
    assert_close([document.embedding for document in embedded["documents"]], tiny_embedder.embed(DOCUMENTS))
    images = [haystack.Document(meta={"file_path": str(media["photo"])})]
    embedded = embedders.JinaDocumentImageEmbedder(**embedding).run(images)
    assert_close(embedded["documents"][0].embedding, tiny_embedder.embed({"image": media["photo"]})[0])
    with pytest.raises(RuntimeError, match="it is empty"):
        embedders.JinaDocumentEmbedder(**embedding, progress_bar=False).run([haystack.Document(content="")])

    ranker = rankers.JinaRanker(model="reranker", api_key=api_key, base_url=f"{server.url}/v1/rerank", top_k=2)
    ranked = ranker.run(query=QUERY, documents=documents)["documents"]
    expected = tiny_reranker.rank(QUERY, DOCUMENTS)[:2]
    assert [document.content for document in ranked] == [DOCUMENTS[index] for index, _ in expected]
    assert_close([document.score for document in ranked], [score for _, score in expected])

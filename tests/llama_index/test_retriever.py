"""Queries with an image: what LlamaIndex's retrievers make of them, and `Qwen3VLRetriever`."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode, ImageNode, NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank
from llama_index.retrievers.qwen3_vl import Qwen3VLRetriever

from qwen3vl import BatchError, InputError, MediaPolicy
from tests.support.llama_index_helpers import best_source
from tests.support.sample_library import STAR


@pytest.fixture
def index(nodes: list[BaseNode], embed_model: Qwen3VLEmbedding) -> VectorStoreIndex:
    return VectorStoreIndex(embed_model(nodes), embed_model=embed_model)


@pytest.fixture
def retriever(index: VectorStoreIndex, embed_model: Qwen3VLEmbedding) -> Qwen3VLRetriever:
    return Qwen3VLRetriever(index.as_retriever(similarity_top_k=3), embed_model)


@pytest.fixture
def star(library_folder: Path) -> str:
    return str(library_folder / "star.png")


def scores(hits: list[NodeWithScore]) -> list[float]:
    return [hit.score or 0.0 for hit in hits]


async def both(retriever: Qwen3VLRetriever, query: str | QueryBundle) -> list[NodeWithScore]:
    """The hits of the blocking method, which must be those of the awaited one."""
    hits = retriever.retrieve(query)
    assert scores(await retriever.aretrieve(query)) == scores(hits)
    return hits


async def test_image_path_of_a_query_is_searched_alone_and_with_text(
    retriever: Qwen3VLRetriever, embed_model: Qwen3VLEmbedding, star: str
) -> None:
    hits = await both(retriever, QueryBundle("", image_path=star))
    assert best_source(hits) == "star.png"
    assert scores(hits)[0] > 0.99
    hits = await both(retriever, QueryBundle("a ring", image_path=star))
    expected = retriever.retriever.retrieve(embed_model.query_bundle({"text": "a ring", "image": star}))
    assert scores(hits) == scores(expected)


async def test_texts_and_bundles_with_vectors_are_passed_on(
    retriever: Qwen3VLRetriever, embed_model: Qwen3VLEmbedding, star: str
) -> None:
    plain = retriever.retriever
    queries: list[str | QueryBundle] = [
        STAR.caption(),
        QueryBundle("ignored", custom_embedding_strs=[STAR.caption()]),
        embed_model.query_bundle({"image": star}),
    ]
    for query in queries:
        hits = await both(retriever, query)
        assert scores(hits) == scores(plain.retrieve(query))
        assert best_source(hits) == "star.png"


async def test_empty_query_and_image_that_may_not_be_read_are_clear_errors(
    retriever: Qwen3VLRetriever, index: VectorStoreIndex, star: str
) -> None:
    for query in ("", QueryBundle("")):
        with pytest.raises(InputError, match="the query is empty: give QueryBundle a query_str"):
            retriever.retrieve(query)
        with pytest.raises(InputError, match="the query is empty"):
            await retriever.aretrieve(query)
    without_files = Qwen3VLRetriever(index.as_retriever(), Qwen3VLEmbedding(model_name="tiny"))
    with pytest.raises(BatchError, match=r"outside the folders that the media policy allows \(none\)"):
        without_files.retrieve(QueryBundle("", image_path=star))


def test_retrievers_of_llama_index_ignore_the_image_of_a_query(index: VectorStoreIndex, star: str) -> None:
    """What the documentation says of them. A release that changes it makes `Qwen3VLRetriever` needless."""
    plain = index.as_retriever(similarity_top_k=3)
    assert scores(plain.retrieve(QueryBundle("a ring", image_path=star))) == scores(plain.retrieve("a ring"))
    with pytest.raises(TypeError):  # the store is asked with the vector None; no embedding model is called
        plain.retrieve(QueryBundle("", image_path=star))


def test_query_engine_searches_and_reranks_by_the_image(
    retriever: Qwen3VLRetriever, policy: MediaPolicy, star: str
) -> None:
    rerank = Qwen3VLRerank(model="tiny", policy=policy, top_n=1)
    engine = RetrieverQueryEngine.from_args(retriever, llm=MockLLM(), node_postprocessors=[rerank])
    response = engine.query(QueryBundle("", image_path=star))
    assert best_source(response.source_nodes) == "star.png"


async def test_multimodal_index_uses_the_vector_of_a_query_bundle(
    embed_model: Qwen3VLEmbedding, library_folder: Path, star: str
) -> None:
    nodes = [
        ImageNode(image_path=str(library_folder / name), metadata={"source": name}) for name in ("0.png", "star.png")
    ]
    index = MultiModalVectorStoreIndex(nodes, embed_model=embed_model, image_embed_model=embed_model)
    plain = index.as_retriever(similarity_top_k=1, image_similarity_top_k=1)
    for retriever in (plain, Qwen3VLRetriever(plain, embed_model)):
        bundle = embed_model.query_bundle({"image": star})
        for hits in (retriever.retrieve(bundle), await retriever.aretrieve(embed_model.query_bundle({"image": star}))):
            assert best_source(hits) == "star.png"
            assert scores(hits)[0] > 0.99
    with pytest.raises(InputError, match=r"ignore the image_path .* wrap the retriever in Qwen3VLRetriever"):
        plain.retrieve(QueryBundle("", image_path=star))

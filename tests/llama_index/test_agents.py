"""Agents that call a query engine or a retriever of ours as a tool, with a scripted language model."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from llama_index.retrievers.qwen3_vl import Qwen3VLRetriever

from qwen3vl import MediaPolicy
from tests.llama_index.test_query_engine import SHOWS_IMAGES
from tests.support.llama_index_helpers import best_source
from tests.support.sample_library import SLIDE, STAR
from tests.support.scripted_llm import ANSWER, ScriptedLLM


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM(max_tokens=None)


@pytest.fixture
def retriever(nodes: list[BaseNode], embed_model: Qwen3VLEmbedding) -> Qwen3VLRetriever:
    index = VectorStoreIndex(embed_model(nodes), embed_model=embed_model)
    return Qwen3VLRetriever(index.as_retriever(similarity_top_k=8), embed_model)


@SHOWS_IMAGES
async def test_agent_asks_a_query_engine_whose_language_model_sees_the_page(
    retriever: Qwen3VLRetriever, policy: MediaPolicy, llm: ScriptedLLM
) -> None:
    engine = RetrieverQueryEngine.from_args(
        retriever,
        llm=llm,
        multimodal=True,
        node_postprocessors=[Qwen3VLRerank(model="tiny", policy=policy, top_n=1), Qwen3VLPictures(policy=policy)],
    )
    tool = QueryEngineTool.from_defaults(engine, name="library", description="Searches images and pages.")
    agent = FunctionAgent(tools=[tool], llm=llm, streaming=False)
    result: Any = await agent.run(SLIDE.caption())
    assert str(result) == f"the tool says: {ANSWER}"
    (call,) = result.tool_calls
    assert (call.tool_name, call.tool_kwargs) == ("library", {"input": SLIDE.caption()})
    assert best_source(call.tool_output.raw_output.source_nodes) == "slides.pdf"
    assert len(llm.images) == 1


@pytest.mark.skipif("streaming" not in FunctionAgent.model_fields, reason="agents of this LlamaIndex always stream")
async def test_agent_asks_a_retriever_and_is_told_the_source_of_an_image(
    retriever: Qwen3VLRetriever, policy: MediaPolicy, llm: ScriptedLLM
) -> None:
    """LlamaIndex's RetrieverTool passes on the text of nodes: for an image, the metadata that the reader writes."""
    rerank = Qwen3VLRerank(model="tiny", policy=policy, top_n=1)
    tool = RetrieverTool.from_defaults(retriever, node_postprocessors=[rerank], name="library", description="Searches.")
    result: Any = await FunctionAgent(tools=[tool], llm=llm, streaming=False).run(STAR.caption())
    (call,) = result.tool_calls
    assert best_source(call.tool_output.raw_output) == "star.png"
    assert "star.png" in str(result)
    assert llm.images == []

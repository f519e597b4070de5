"""Query engines that rerank and show images to a language model."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode, ImageNode, NodeWithScore, TextNode
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from PIL import Image

from qwen3vl import MediaPolicy
from tests.support.llama_index_helpers import best_source
from tests.support.sample_library import SLIDE


class RecordingLLM(MockLLM):
    """A chat model that keeps the messages it was sent."""

    messages: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    def chat(self, messages: Sequence[ChatMessage], **_: Any) -> ChatResponse:
        self.messages.extend(messages)
        return ChatResponse(message=ChatMessage(role="assistant", content="a yellow cross"))

    async def achat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        return self.chat(messages, **options)


@pytest.fixture
def llm() -> RecordingLLM:
    return RecordingLLM(max_tokens=None, is_chat_model=True)


@pytest.mark.skipif(
    "multimodal" not in inspect.signature(RetrieverQueryEngine.from_args).parameters,
    reason="query engines of this LlamaIndex show no images",
)
async def test_query_engine_reranks_and_shows_the_rendered_page(
    nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, policy: MediaPolicy, llm: RecordingLLM
) -> None:
    index = VectorStoreIndex(embed_model(nodes), embed_model=embed_model)
    engine = RetrieverQueryEngine.from_args(
        retriever=index.as_retriever(similarity_top_k=8),
        llm=llm,
        multimodal=True,
        node_postprocessors=[Qwen3VLRerank(model="tiny", policy=policy, top_n=2), Qwen3VLPictures(policy=policy)],
    )
    for response in (engine.query(SLIDE.caption()), await engine.aquery(SLIDE.caption())):
        assert str(response) == "a yellow cross"
        assert best_source(response.source_nodes) == "slides.pdf"
        assert (response.source_nodes[0].score or 0) > 0.5
    images = [block for message in llm.messages for block in message.blocks if isinstance(block, ImageBlock)]
    assert len(images) >= 2
    pixels = np.asarray(Image.open(BytesIO(images[0].resolve_image().read())).convert("RGB"), dtype=float)
    red, green, blue = pixels.reshape(-1, 3)[pixels.std(axis=2).reshape(-1) > 40].mean(axis=0)
    assert min(red, green) > blue + 60  # yellow on white


def test_pictures_makes_image_nodes_of_nodes_with_media(nodes: list[BaseNode], policy: MediaPolicy) -> None:
    scored = [NodeWithScore(node=node, score=0.5) for node in nodes]
    shown = Qwen3VLPictures(policy=policy, side=64).postprocess_nodes(scored)
    for before, after in zip(scored, shown, strict=True):
        assert after.score == 0.5
        assert after.node.node_id == before.node.node_id
        assert after.node.metadata == before.node.metadata
        if before.node.metadata["kind"] == "text":
            assert after.node is before.node
        else:
            assert isinstance(after.node, ImageNode)
            assert max(Image.open(BytesIO(base64.b64decode(after.node.image or ""))).size) <= 66


@pytest.mark.parametrize(
    "node", [ImageNode(image_path="/etc/hostname"), TextNode(text="", metadata={"image": 7})], ids=["denied", "int"]
)
def test_pictures_leaves_nodes_with_unreadable_media_as_they_are(node: BaseNode, policy: MediaPolicy) -> None:
    (shown,) = Qwen3VLPictures(policy=policy).postprocess_nodes([NodeWithScore(node=node)])
    assert shown.node is node

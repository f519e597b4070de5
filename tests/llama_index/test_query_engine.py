"""Query engines that rerank and show images to a language model."""

from __future__ import annotations

import base64
import inspect
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode, ImageNode, MediaResource, Node, NodeWithScore, TextNode
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from PIL import Image

from qwen3vl import MediaPolicy
from tests.support.llama_index_helpers import best_source
from tests.support.sample_library import SLIDE
from tests.support.scripted_llm import ANSWER, ScriptedLLM

SHOWS_IMAGES = pytest.mark.skipif(
    "multimodal" not in inspect.signature(RetrieverQueryEngine.from_args).parameters,
    reason="query engines of this LlamaIndex show no images",
)


@pytest.fixture
def llm() -> ScriptedLLM:
    return ScriptedLLM(max_tokens=None)


@SHOWS_IMAGES
async def test_query_engine_reranks_and_shows_the_rendered_page(
    nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, policy: MediaPolicy, llm: ScriptedLLM
) -> None:
    index = VectorStoreIndex(embed_model(nodes), embed_model=embed_model)
    engine = RetrieverQueryEngine.from_args(
        retriever=index.as_retriever(similarity_top_k=8),
        llm=llm,
        multimodal=True,
        node_postprocessors=[Qwen3VLRerank(model="tiny", policy=policy, top_n=2), Qwen3VLPictures(policy=policy)],
    )
    for response in (engine.query(SLIDE.caption()), await engine.aquery(SLIDE.caption())):
        assert str(response) == ANSWER
        assert best_source(response.source_nodes) == "slides.pdf"
        assert (response.source_nodes[0].score or 0) > 0.5
    assert len(llm.images) >= 2
    pixels = np.asarray(Image.open(BytesIO(llm.images[0].resolve_image().read())).convert("RGB"), dtype=float)
    red, green, blue = pixels.reshape(-1, 3)[pixels.std(axis=2).reshape(-1) > 40].mean(axis=0)
    assert min(red, green) > blue + 60  # yellow on white


@SHOWS_IMAGES
@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "accumulate", "compact_accumulate"])
def test_language_model_sees_an_image_of_every_node_in_every_response_mode(
    mode: str, embed_model: Qwen3VLEmbedding, policy: MediaPolicy, library_folder: Path, llm: ScriptedLLM
) -> None:
    """An image, a page and a video, each held or named in a different way."""
    nodes: list[BaseNode] = [
        ImageNode(image_path=str(library_folder / "star.png")),
        TextNode(text="", metadata={"image": str(library_folder / "slides.pdf#page=2")}),
        Node(video_resource=MediaResource(path=library_folder / "mover.mp4")),
    ]
    index = VectorStoreIndex(embed_model(nodes), embed_model=embed_model)
    options: dict[str, Any] = {"llm": llm, "multimodal": True, "response_mode": mode}
    plain = RetrieverQueryEngine.from_args(index.as_retriever(similarity_top_k=3), **options)
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(similarity_top_k=3),
        node_postprocessors=[Qwen3VLPictures(policy=policy, side=64)],
        **options,
    )
    assert ANSWER in str(engine.query("what is there?"))
    sizes = {Image.open(BytesIO(block.resolve_image().read())).size for block in llm.images}
    assert len({block.resolve_image().read() for block in llm.images}) == 3
    assert max(max(size) for size in sizes) <= 66
    llm.messages.clear()
    plain.query("what is there?")  # without Qwen3VLPictures, only the ImageNode is shown
    assert len({block.resolve_image().read() for block in llm.images}) == 1


@SHOWS_IMAGES
def test_multimodal_chat_engine_shows_the_images(
    nodes: list[BaseNode], embed_model: Qwen3VLEmbedding, policy: MediaPolicy, llm: ScriptedLLM
) -> None:
    from llama_index.core.chat_engine import MultiModalContextChatEngine  # 0.13.0 has none

    index = VectorStoreIndex(embed_model(nodes), embed_model=embed_model)
    engine = MultiModalContextChatEngine.from_defaults(
        retriever=index.as_retriever(similarity_top_k=8),
        multi_modal_llm=llm,
        node_postprocessors=[Qwen3VLRerank(model="tiny", policy=policy, top_n=2), Qwen3VLPictures(policy=policy)],
    )
    assert str(engine.chat(SLIDE.caption())) == ANSWER
    assert len(llm.images) == 2


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

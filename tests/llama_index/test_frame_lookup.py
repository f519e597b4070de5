"""`lookup_nodes`: indexes and pipeline caches see the media of nodes, unless it is switched off."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.indices.utils import embed_nodes
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import MetadataMode, TextNode
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

from qwen3vl import Embedder, MediaPolicy
from tests.support.engines import assert_close
from tests.support.llama_index_helpers import image_nodes


def captioned_nodes(library_folder: Path) -> list[TextNode]:
    return [
        TextNode(text="a star", metadata={"image": str(library_folder / "star.png")}),
        TextNode(text="moves", metadata={"video": str(library_folder / "mover.mp4")}),
        TextNode(text="only a text"),
    ]


def index_vectors(index: VectorStoreIndex, nodes: Any) -> list[list[float]]:
    stored = index.vector_store.to_dict()["embedding_dict"]
    return [stored[node.node_id] for node in nodes]


@pytest.fixture
def without_lookup(policy: MediaPolicy) -> Qwen3VLEmbedding:
    return Qwen3VLEmbedding(model_name="tiny", device="cpu", policy=policy, lookup_nodes=False)


async def test_on_an_index_embeds_text_and_media(
    embed_model: Qwen3VLEmbedding, library_folder: Path, tiny_embedder: Embedder
) -> None:
    nodes = captioned_nodes(library_folder)
    inputs: list[Any] = [
        {"text": "a star", "image": str(library_folder / "star.png")},
        {"text": "moves", "video": str(library_folder / "mover.mp4")},
        "only a text",
    ]
    expected = tiny_embedder.embed(inputs).tolist()
    assert_close(index_vectors(VectorStoreIndex(nodes, embed_model=embed_model), nodes), expected)
    async_index = VectorStoreIndex([], embed_model=embed_model)
    await async_index.ainsert_nodes(nodes)
    assert_close(index_vectors(async_index, nodes), expected)


async def test_off_an_index_embeds_texts_only(
    without_lookup: Qwen3VLEmbedding, library_folder: Path, tiny_embedder: Embedder
) -> None:
    nodes = captioned_nodes(library_folder)
    expected = tiny_embedder.embed([node.get_content(MetadataMode.EMBED) for node in nodes]).tolist()
    assert_close(index_vectors(VectorStoreIndex(nodes, embed_model=without_lookup), nodes), expected)
    async_index = VectorStoreIndex([], embed_model=without_lookup)
    await async_index.ainsert_nodes(nodes)
    assert_close(index_vectors(async_index, nodes), expected)


async def test_off_nodes_that_are_passed_are_embedded_with_their_media(
    without_lookup: Qwen3VLEmbedding, embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    expected = [node.embedding for node in embed_model(captioned_nodes(library_folder))]
    nodes = without_lookup(captioned_nodes(library_folder))
    assert_close([node.embedding for node in nodes], expected)
    assert_close(index_vectors(VectorStoreIndex(nodes, embed_model=without_lookup), nodes), expected)
    pipeline = IngestionPipeline(transformations=[without_lookup])
    assert_close([node.embedding for node in pipeline.run(nodes=captioned_nodes(library_folder))], expected)
    async_pipeline = IngestionPipeline(transformations=[without_lookup])
    assert_close(
        [node.embedding for node in await async_pipeline.arun(nodes=captioned_nodes(library_folder))], expected
    )


def test_off_a_pipeline_cache_tells_nodes_apart_by_text_only(
    without_lookup: Qwen3VLEmbedding, library_folder: Path
) -> None:
    """As the documentation says: images without text and metadata need `disable_cache=True` then."""
    cached = IngestionPipeline(transformations=[without_lookup])
    (star,) = cached.run(nodes=image_nodes(library_folder, "star.png"))
    (mistaken,) = cached.run(nodes=image_nodes(library_folder, "0.png"))
    assert mistaken.node_id == star.node_id
    uncached = IngestionPipeline(transformations=[without_lookup], disable_cache=True)
    (other,) = uncached.run(nodes=image_nodes(library_folder, "0.png"))
    assert other.embedding != star.embedding


def test_switch_can_be_changed_and_is_serialized(policy: MediaPolicy, library_folder: Path) -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", policy=policy)
    assert embed_model.to_dict()["lookup_nodes"] is True
    embed_model.lookup_nodes = False
    assert embed_model.to_dict()["lookup_nodes"] is False
    (node, *_) = nodes = captioned_nodes(library_folder)
    text_vectors = index_vectors(VectorStoreIndex(nodes, embed_model=embed_model), nodes)
    embed_model.lookup_nodes = True
    media_vectors = index_vectors(VectorStoreIndex(nodes, embed_model=embed_model), nodes)
    assert node.embedding is None
    assert text_vectors[0] != media_vectors[0]


class FirstTextOnly:
    """A wrapper that passes on only a part of an index's texts."""

    def __init__(self, embed_model: Qwen3VLEmbedding) -> None:
        self.embed_model = embed_model

    def get_text_embedding_batch(self, texts: list[str], **options: Any) -> list[list[float]]:
        return self.embed_model.get_text_embedding_batch(texts[:1], **options)


def test_texts_that_match_no_nodes_are_embedded_as_texts_with_a_warning(
    embed_model: Qwen3VLEmbedding, library_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = captioned_nodes(library_folder)
    wrapper: Any = FirstTextOnly(embed_model)
    with caplog.at_level(logging.WARNING, "llama_index.embeddings.qwen3_vl"):
        vectors = embed_nodes(nodes, wrapper)
    text = nodes[0].get_content(MetadataMode.EMBED)
    assert vectors == {nodes[0].node_id: embed_model.get_text_embedding(text)}
    assert "nodes = embed_model(nodes)" in caplog.text

"""Qwen3VLEmbedding's methods: the embedder's vectors bit for bit, errors, concurrency."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import ImageNode, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from pydantic import ValidationError

from qwen3vl import BatchError, Embedder, InputError, MediaPolicy
from tests.support.engines import assert_close, await_while_busy

TEXTS = ["a red star", "a green circle on the left", "two words", "a red star"]


async def test_text_methods_return_the_embedders_vectors(
    embed_model: Qwen3VLEmbedding, tiny_embedder: Embedder
) -> None:
    batch = tiny_embedder.embed(TEXTS)
    assert_close(embed_model.get_text_embedding_batch(TEXTS), batch)
    assert_close(await embed_model.aget_text_embedding_batch(TEXTS), batch)
    assert_close(embed_model._get_text_embeddings(TEXTS), batch)
    assert_close(await embed_model._aget_text_embeddings(TEXTS), batch)
    text = TEXTS[0]
    vector = tiny_embedder.embed([text])[0]
    for embedding in (
        embed_model.get_text_embedding(text),
        await embed_model.aget_text_embedding(text),
        embed_model.get_query_embedding(text),
        await embed_model.aget_query_embedding(text),
        embed_model._get_text_embedding(text),
        await embed_model._aget_text_embedding(text),
        embed_model._get_query_embedding(text),
        await embed_model._aget_query_embedding(text),
    ):
        assert_close(embedding, vector)
        assert type(embedding[0]) is float
    assert embed_model.get_text_embedding_batch([]) == await embed_model.aget_text_embedding_batch([]) == []


async def test_image_methods_return_the_embedders_vectors(
    embed_model: Qwen3VLEmbedding, tiny_embedder: Embedder, library_folder: Path
) -> None:
    star = library_folder / "star.png"
    vector = tiny_embedder.embed([{"image": str(star)}])[0]
    for image in (str(star), star.as_uri(), BytesIO(star.read_bytes())):
        assert_close(embed_model.get_image_embedding(image), vector)
        assert_close(await embed_model.aget_image_embedding(image), vector)
        assert_close(embed_model._get_image_embedding(image), vector)
        assert_close(await embed_model._aget_image_embedding(image), vector)
    images: list[Any] = [str(star), str(star)]
    batch = tiny_embedder.embed([{"image": image} for image in images])
    assert_close(embed_model.get_image_embedding_batch(images), batch)
    assert_close(await embed_model.aget_image_embedding_batch(images), batch)


async def test_video_and_multimodal_methods_return_the_embedders_vectors(
    embed_model: Qwen3VLEmbedding, tiny_embedder: Embedder, library_folder: Path
) -> None:
    star, mover = str(library_folder / "star.png"), str(library_folder / "mover.mp4")
    vector = tiny_embedder.embed([{"video": mover}])[0]
    assert_close(embed_model.get_video_embedding(mover), vector)
    assert_close(await embed_model.aget_video_embedding(mover), vector)
    assert_close(embed_model.get_video_embeddings([mover]), [vector])
    assert_close(await embed_model.aget_video_embeddings([mover]), [vector])
    value: Any = {"text": "a star", "image": star}
    vector = tiny_embedder.embed([value])[0]
    assert_close(embed_model.get_multimodal_embedding(value), vector)
    assert_close(await embed_model.aget_multimodal_embedding(value), vector)
    assert_close(embed_model.get_multimodal_query_embedding(value), vector)
    assert_close(await embed_model.aget_multimodal_query_embedding(value), vector)
    for bundle in (embed_model.query_bundle(value), await embed_model.aquery_bundle(value)):
        assert (bundle.query_str, bundle.image_path) == ("a star", star)
        assert_close(bundle.embedding, vector)
        assert bundle.query == value


@pytest.mark.engine
@pytest.mark.parametrize("cached", [False, True])
async def test_awaits_share_forward_passes(cached: bool, embed_model: Qwen3VLEmbedding, checkpoints: Path) -> None:
    """Also with a cache, whose threads look vectors up and do not wait for the model."""
    store = SimpleKVStore() if cached else None
    model = Qwen3VLEmbedding(model_name="tiny", device="cpu", embeddings_cache=store)
    texts = [f"text number {number}" for number in range(30)]
    calls: list[Any] = [model.aget_query_embedding(text) for text in texts[:10]]
    calls += [model._aget_text_embedding(text) for text in texts[10:20]]
    calls += [model.acall([TextNode(text=text)]) for text in texts[20:]]
    results, num_passes = await await_while_busy(checkpoints / "embedding", model.embedder.engine, calls, 30)
    assert num_passes < 5
    vectors = [*results[:20], *(node.embedding for (node,) in results[20:])]
    assert_close(vectors, embed_model.get_text_embedding_batch(texts))
    if store is not None:
        assert len(store.get_all("qwen3vl")) == 30
        assert await model.aget_query_embedding(texts[0]) == vectors[0]


async def test_aggregated_queries_need_a_text(embed_model: Qwen3VLEmbedding) -> None:
    assert embed_model.get_agg_embedding_from_queries(["a"]) == pytest.approx(embed_model.get_query_embedding("a"))
    with pytest.raises(InputError, match="query_bundle"):
        embed_model.get_agg_embedding_from_queries([])
    with pytest.raises(InputError, match="query_bundle"):
        await embed_model.aget_agg_embedding_from_queries([])


def test_queries_and_documents_have_their_own_instructions() -> None:
    embed_model = Qwen3VLEmbedding(
        model_name="tiny", dimensions=32, query_instruction="Find it.", document_instruction="Keep the colour."
    )
    embedder = Embedder("tiny", dimensions=32, instruction="Keep the colour.")
    assert_close(embed_model.get_text_embedding("a"), embedder.embed("a")[0])
    assert_close(embed_model.get_query_embedding("a"), embedder.embed("a", instruction="Find it.")[0])
    assert embed_model.get_query_embedding("a") != embed_model.get_text_embedding("a")


def test_unknown_and_unsafe_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="dimension"):
        Qwen3VLEmbedding(model_name="tiny", dimension=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="trust_remote_code"):
        Qwen3VLEmbedding(model_name="tiny", model_kwargs={"trust_remote_code": True})
    embed_model = Qwen3VLEmbedding(model_name="tiny")
    with pytest.raises(ValidationError, match="names no folders"):
        embed_model.policy = MediaPolicy()


def test_inputs_that_cannot_be_embedded_raise_batch_error(embed_model: Qwen3VLEmbedding, library_folder: Path) -> None:
    with pytest.raises(BatchError, match=r"item 1 .*corrupt"):
        embed_model([TextNode(text="a"), ImageNode(image_path=str(library_folder / "corrupt [x].png"))])
    with pytest.raises(BatchError, match="empty"):
        embed_model.get_text_embedding("")
    with pytest.raises(BatchError, match="empty"):
        embed_model([TextNode(text="")])


def test_batch_error_counts_indices_over_all_batches_and_caches_the_others() -> None:
    store = SimpleKVStore()
    embed_model = Qwen3VLEmbedding(model_name="tiny", embed_batch_size=2, embeddings_cache=store)
    texts = ["a", "b", "c", "", "d", ""]
    with pytest.raises(BatchError, match="2 of 6") as first:
        embed_model.get_text_embedding_batch(texts)
    assert [error.index for error in first.value.errors] == [3, 5]
    assert first.value.results[4] == embed_model.get_text_embedding("d")
    assert len(store.get_all("qwen3vl")) == 4
    with pytest.raises(BatchError, match="2 of 6") as second:
        embed_model.get_text_embedding_batch(texts)
    assert [error.index for error in second.value.errors] == [3, 5]


def test_on_error_skip_leaves_failed_nodes_out() -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", on_error="skip")
    nodes = embed_model([TextNode(text="", id_="1"), TextNode(text="a", id_="2")])
    assert [node.node_id for node in nodes] == ["2"]


async def test_concurrent_calls_return_the_right_vectors(
    embed_model: Qwen3VLEmbedding,
) -> None:
    texts = [f"a text of number {number % 40}" for number in range(400)]
    small_batches = Qwen3VLEmbedding(
        model_name="tiny", device="cpu", embed_batch_size=10, num_workers=4, policy=embed_model.policy
    )
    batch = await small_batches.aget_text_embedding_batch(texts, show_progress=False)
    expected = {text: embed_model.get_query_embedding(text) for text in set(texts)}
    vectors = await asyncio.gather(*(embed_model.aget_query_embedding(text) for text in texts[:200]))
    assert_close(vectors, [expected[text] for text in texts[:200]])
    assert_close(batch[:10], embed_model.get_text_embedding_batch(texts[:10]))
    with ThreadPoolExecutor(32) as pool:
        assert_close(list(pool.map(embed_model.get_query_embedding, texts[:96])), vectors[:96])

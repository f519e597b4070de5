"""The asynchronous methods of `Qwen3VLEmbeddings` do what the blocking ones do, and share batches."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_qwen3_vl import Qwen3VLEmbeddings
from langchain_qwen3_vl.precomputed import PrecomputedText

from qwen3vl import BatchError, InputError
from tests.support.engines import assert_close, await_while_busy

TEXTS = ["a red star", "a green circle on the left", "two words", "a red star"]


async def test_async_methods_return_the_same_vectors(embeddings: Qwen3VLEmbeddings, library_folder: Path) -> None:
    image = str(library_folder / "star.png")
    assert_close(await embeddings.aembed_documents(TEXTS), embeddings.embed_documents(TEXTS))
    assert_close(await embeddings.aembed_query(TEXTS[0]), embeddings.embed_query(TEXTS[0]))
    assert_close(await embeddings.aembed_image([image]), embeddings.embed_image([image]))
    inputs = [{"image": image}]
    assert_close(await embeddings.aembed_multimodal(inputs), embeddings.embed_multimodal(inputs))
    for awaited, blocking in (
        (embeddings.aembed_documents, embeddings.embed_documents),
        (embeddings.aembed_multimodal, embeddings.embed_multimodal),
    ):
        assert await awaited([]) == []
        with pytest.raises(BatchError, match="1 of 2") as expected:
            blocking(["", "a text"])
        with pytest.raises(BatchError, match="1 of 2") as raised:
            await awaited(["", "a text"])
        assert raised.value.__notes__ == expected.value.__notes__
    with pytest.raises(InputError, match="the query"):
        await embeddings.aembed_query("")
    text = PrecomputedText("a text", [1.0, 2.0])
    assert await embeddings.aembed_documents([text, text]) == [[1.0, 2.0], [1.0, 2.0]]
    batch = await embeddings.acollect(["", "a text"])
    assert batch.ok.tolist() == [False, True]


@pytest.mark.engine
async def test_awaits_share_forward_passes(embeddings: Qwen3VLEmbeddings, checkpoints: Path) -> None:
    texts = [f"text number {number}" for number in range(30)]
    calls: list[Any] = [embeddings.aembed_query(text) for text in texts[:15]]
    calls += [embeddings.aembed_documents([text]) for text in texts[15:]]
    vectors, num_passes = await await_while_busy(checkpoints / "embedding", embeddings.embedder.engine, calls, 30)
    assert num_passes < 5
    assert_close(vectors[:15], [embeddings.embed_query(text) for text in texts[:15]])
    assert_close(np.vstack(vectors[15:]), embeddings.embed_documents(texts[15:]))


async def test_concurrent_tasks_get_the_right_vectors(embeddings: Qwen3VLEmbeddings) -> None:
    texts = [f"a text of number {number % 40}" for number in range(200)]
    expected = {text: embeddings.embed_query(text) for text in set(texts)}
    vectors = await asyncio.gather(*(embeddings.aembed_query(text) for text in texts))
    assert_close(vectors, [expected[text] for text in texts])

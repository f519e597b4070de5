"""Media that callers pass as objects are copied by a thread, not by the event loop, and before the next is taken."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qwen3vl import Document, Embedder, InputError, Reranker, Retriever, ingest, open_store
from qwen3vl.inputs.copies import is_cheap
from tests.support.engines import assert_close
from tests.support.noted_image import NotedImage


class NotedArray:
    """An array that notes which threads read it."""

    shape = (64, 64, 3)

    def __init__(self) -> None:
        self.threads: list[str] = []

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.threads.append(threading.current_thread().name)
        return np.full(self.shape, 90, dtype=np.uint8)


@pytest.fixture
def image() -> NotedImage:
    return NotedImage(Image.new("RGB", (64, 64), "red"))


@pytest.mark.parametrize("form", ["itself", "in a mapping", "as a frame"])
def test_loop_does_not_copy_images(tiny_embedder: Embedder, image: NotedImage, form: str) -> None:
    value: Any = {"itself": image, "in a mapping": {"image": image}, "as a frame": {"video": [image, image]}}[form]
    vectors = asyncio.run(tiny_embedder.aembed([value, "a text"]))
    assert image.threads
    assert set(image.threads) == {"qwen3vl-copies_0"}
    assert_close(vectors, tiny_embedder.embed([value, "a text"]))
    assert threading.current_thread().name in image.threads  # blocking calls copy on their own thread


def test_loop_does_not_read_arrays(tiny_embedder: Embedder) -> None:
    array: Any = NotedArray()
    asyncio.run(tiny_embedder.aembed([array]))
    assert "qwen3vl-copies_0" in array.threads


def test_models_that_are_awaited_at_once_copy_images_on_one_thread(
    tiny_embedder: Embedder, tiny_reranker: Reranker, image: NotedImage
) -> None:
    async def run() -> Any:
        return await asyncio.gather(
            tiny_embedder.aembed(image),
            tiny_reranker.ascore(image, [{"image": image}, "a red square"]),
            tiny_reranker.arank("red", [image]),
        )

    vectors, scores, _ = asyncio.run(run())
    assert image.threads == ["qwen3vl-copies_0"] * 4
    assert_close(vectors, tiny_embedder.embed(image))
    assert_close(scores, tiny_reranker.score(image, [{"image": image}, "a red square"]))


def test_awaited_search_copies_the_query_on_the_thread(
    tiny_embedder: Embedder, tiny_reranker: Reranker, image: NotedImage
) -> None:
    store = open_store(":memory:")
    ingest([Document("colours", "text", text="a red square")], tiny_embedder, store)
    (hit,) = asyncio.run(Retriever(tiny_embedder, store, tiny_reranker).asearch(image, 1))
    store.close()
    assert hit.rerank_score is not None
    assert set(image.threads) == {"qwen3vl-copies_0"}


def test_object_may_be_yielded_again_with_other_pixels(tiny_embedder: Embedder) -> None:
    def frames() -> Iterator[Any]:
        buffer = np.zeros((64, 64, 3), dtype=np.uint8)
        for shade in range(0, 250, 10):
            buffer[:, : 1 + shade // 5] = shade
            yield buffer
            buffer[:] = 0

    expected = tiny_embedder.embed([buffer.copy() for buffer in frames()])
    assert_close(asyncio.run(tiny_embedder.aembed(frames())), expected)


def test_broken_images_are_errors_of_their_items(tiny_embedder: Embedder, tiny_reranker: Reranker) -> None:
    class Broken(NotedImage):
        def copy(self) -> Image.Image:
            raise OSError("truncated")

    broken = Broken(Image.new("RGB", (8, 8)))
    batch = asyncio.run(tiny_embedder.aembed(["a text", broken], on_error="collect"))
    assert [error.index for error in batch.errors] == [1]
    assert "truncated" in str(batch.errors[0])
    with pytest.raises(InputError, match="truncated"):
        asyncio.run(tiny_reranker.ascore(broken, ["a text"]))


def test_only_what_is_copied_goes_to_the_thread() -> None:
    cheap: list[Any] = ["a text", {"text": "a text", "instruction": "find"}, b"encoded"]
    dear: list[Any] = [{"image": "data:image/png;base64,…"}, {"video": ["a", "b"]}, bytearray(b"encoded"), np.zeros(3)]
    assert all(map(is_cheap, cheap))
    assert not any(map(is_cheap, dear))

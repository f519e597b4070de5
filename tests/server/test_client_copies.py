"""Awaited calls of a client copy pixels on a thread, as those of a model in this process do."""

from __future__ import annotations

import asyncio

from PIL import Image

from qwen3vl import Embedder, Reranker
from tests.support.engines import assert_close
from tests.support.model_server import ModelServer
from tests.support.noted_image import NotedImage


def test_client_copies_on_the_thread(golden_server: ModelServer) -> None:
    image = NotedImage(Image.new("RGB", (64, 64), "red"))
    with Embedder(golden_server.url) as embedder, Reranker(golden_server.url) as reranker:
        vectors = asyncio.run(embedder.aembed([image, "a text"] * 40))
        asyncio.run(reranker.ascore(image, [image]))
        assert set(image.threads) == {"qwen3vl-copies_0"}
        assert_close(vectors, embedder.embed([image, "a text"] * 40))

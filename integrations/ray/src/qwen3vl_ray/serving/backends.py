"""`Embedder` and `Reranker` whose models are deployments."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator
from functools import partial

from qwen3vl.backends import EmbeddingBackend, RerankingBackend
from qwen3vl.client.chunks import arun_chunks, run_chunks
from qwen3vl.embedder import Embedder
from qwen3vl.inputs import Input, Item
from qwen3vl.reranker import Reranker
from qwen3vl.results import ItemOutput
from qwen3vl_ray.serving.handles import CallFields, HandleBackend


class HandleEmbedder(HandleBackend):
    """Embeds inputs by a deployment of `EmbedderReplica`."""

    def embed(self, inputs: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.embed`."""
        return run_chunks(self, inputs, partial(self._send_chunk, CallFields(instruction)))

    def aembed(self, inputs: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.aembed`."""
        return arun_chunks(self, inputs, partial(self._send_chunk, CallFields(instruction)))


class HandleReranker(HandleBackend):
    """Scores documents by a deployment of `RerankerReplica`."""

    def score(self, query: Item, documents: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Score documents; see `RerankingBackend.score`."""
        return run_chunks(self, documents, partial(self._send_chunk, CallFields(instruction, query)))

    def ascore(self, query: Item, documents: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Score documents; see `RerankingBackend.ascore`."""
        return arun_chunks(self, documents, partial(self._send_chunk, CallFields(instruction, query)))


class DeployedEmbedder(Embedder):
    """An `Embedder` whose model is a deployment.

    Args:
        backend: The deployment.
    """

    def __init__(self, backend: EmbeddingBackend) -> None:
        self.backend = backend


class DeployedReranker(Reranker):
    """A `Reranker` whose model is a deployment.

    Args:
        backend: The deployment.
    """

    def __init__(self, backend: RerankingBackend) -> None:
        self.backend = backend

"""Servers that the tests share, each in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, Reranker
from tests.support.model_server import ModelServer


@pytest.fixture(scope="session")
def golden_server(checkpoints: Path) -> Iterator[ModelServer]:
    """The golden checkpoints, with the policy that `qwen3vl serve` has."""
    embedder = Embedder(checkpoints / "embedding", device="cpu", policy=SERVER_POLICY)
    reranker = Reranker(checkpoints / "reranker", device="cpu", policy=SERVER_POLICY)
    with embedder, reranker, ModelServer(create_app(embedder=embedder, reranker=reranker)) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_server() -> Iterator[ModelServer]:
    """The tiny models, under two names."""
    settings = ServerSettings(embedder_name="embedding", reranker_name="reranker")
    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    app = create_app(embedder=embedder, reranker=reranker, settings=settings)
    with embedder, reranker, ModelServer(app) as server:
        yield server

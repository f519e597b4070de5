"""Servers that the tests share, each in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import SERVER_POLICY, ServerSettings, create_app

from qwen3vl import Embedder, Reranker
from tests.support.engines import GatedForward, busy_embedder
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


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Any]]:
    """The tiny models, as arguments of `create_app`."""
    with (
        Embedder("tiny", device="cpu", policy=SERVER_POLICY) as embedder,
        Reranker("tiny", device="cpu", policy=SERVER_POLICY) as reranker,
    ):
        yield {"embedder": embedder, "reranker": reranker}


@pytest.fixture
def server(models: dict[str, Any]) -> Iterator[ModelServer]:
    """A server that has no contents yet."""
    with ModelServer(create_app(**models)) as server:
        yield server


@pytest.fixture
def busy() -> Iterator[GatedForward]:
    """The CPU is busy until the test sets `resume`."""
    with busy_embedder(Path("tiny")) as (_, forward):
        yield forward

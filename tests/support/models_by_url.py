"""The option `--models-by-url`: the tiny models of LangChain's and LlamaIndex's classes are those of a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

OPTION = "--models-by-url"
MARKER = "engine"
"""Marker of tests that look at the engine in this process."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="the tiny models of the adapters' classes are in a server")


@pytest.fixture(autouse=True, scope="session")
def _models_by_url(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the option, serve the tiny models, and let the adapters' classes with `model="tiny"` use them by URL."""
    if not request.config.getoption(OPTION):
        yield
        return
    from qwen3vl_server import SERVER_POLICY, create_app

    from qwen3vl import Embedder, Reranker
    from qwen3vl.adapters.settings import ModelSettings
    from tests.support.model_server import ModelServer

    engine_arguments = ModelSettings.engine_arguments

    def arguments_of_client(settings: ModelSettings, model: str, instruction: str | None) -> dict[str, Any]:
        arguments = engine_arguments(settings, model, instruction)
        if model != "tiny":
            return arguments
        return {name: value for name, value in arguments.items() if name not in ("device", "dtype")} | {"model": url}

    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    with embedder, reranker, ModelServer(create_app(embedder=embedder, reranker=reranker)) as server:
        url = server.url
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ModelSettings, "engine_arguments", arguments_of_client)
            yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption(OPTION):
        for item in items:
            if item.get_closest_marker(MARKER):
                item.add_marker(pytest.mark.skip(reason="the engine is in the server"))

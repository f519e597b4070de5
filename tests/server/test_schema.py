"""The OpenAPI description: requests that it allows, and others, get the answers that it documents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from qwen3vl_server import SERVER_POLICY, create_app

from qwen3vl import Embedder, Reranker, open_store
from tests.support.model_server import ModelServer

schemathesis = pytest.importorskip("schemathesis")
from schemathesis import GenerationMode  # noqa: E402 (after importorskip)
from schemathesis.checks import not_a_server_error  # noqa: E402
from schemathesis.specs.openapi.checks import (  # noqa: E402
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


BOUNDED = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """With a store, which has endpoints of its own."""
    media = tmp_path_factory.mktemp("media")
    policy = replace(SERVER_POLICY, folders=(media,))
    with (
        Embedder("tiny", device="cpu", policy=policy) as embedder,
        Reranker("tiny", device="cpu", policy=policy) as reranker,
        closing(open_store(":memory:")) as store,
        ModelServer(create_app(embedder=embedder, reranker=reranker, store=store, media=media)) as server,
    ):
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_as_described(server: ModelServer, mode: GenerationMode) -> None:
    description = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [result.ok() for result in description.get_all_operations()]
    assert {"/v1/embeddings", "/v1/rerank", "/qwen3vl/embed", "/v1/search"} <= {
        operation.path for operation in operations
    }
    for operation in operations:
        if mode.is_negative and not list(operation.body):
            continue  # a parameter that is a string cannot be wrong

        @BOUNDED
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            case.call_and_validate(checks=CHECKS, timeout=120)

        check()

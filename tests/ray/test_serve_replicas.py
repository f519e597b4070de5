"""A replica in this process: its health, and calls that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from qwen3vl_ray.serving.messages import ReplicaCall
from qwen3vl_ray.serving.replicas import UNHEALTHY_FAILURES, EmbedderReplica, ModelChoice, RerankerReplica
from qwen3vl_server import SERVER_POLICY

from qwen3vl import InputError, RecipeError
from qwen3vl.engine import engine
from qwen3vl.inputs import as_item
from tests.support.engines import with_stages

CHOICE = ModelChoice("tiny", SERVER_POLICY, {"device": "cpu"})


@pytest.fixture
def replica() -> Iterator[EmbedderReplica]:
    replica = EmbedderReplica(CHOICE)
    with replica._model:
        yield replica


async def call(replica: EmbedderReplica, *values: Any) -> Any:
    recipe = await replica.describe(CHOICE)
    assert recipe is not None
    items = [as_item(value) for value in values]
    return await replica.run(ReplicaCall(digest=recipe.digest, instruction="Find it.", items=items))


async def test_model_that_fails_is_unhealthy_until_it_works(replica: EmbedderReplica) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the device is lost")

    replica.check_health()
    with_stages(replica._model, {"forward": fail})
    texts = [f"text {number}" for number in range(UNHEALTHY_FAILURES)]
    answer = await call(replica, *texts)
    assert all("the device is lost" in output.error.reason for output in answer.outputs)
    with pytest.raises(RuntimeError, match=f"failed on the last {UNHEALTHY_FAILURES} items"):
        replica.check_health()


async def test_broken_inputs_are_no_sign_of_anything(replica: EmbedderReplica) -> None:
    answer = await call(replica, *[b"no image"] * 2 * UNHEALTHY_FAILURES)
    assert all(output.error is not None for output in answer.outputs)
    replica.check_health()
    replica._model.close()
    with pytest.raises(RuntimeError, match="closed"):
        replica.check_health()


async def test_other_recipe_and_other_version(replica: EmbedderReplica) -> None:
    answer = await replica.run(ReplicaCall(digest="another", instruction="Find it.", items=[as_item("a")]))
    assert isinstance(answer.error, RecipeError)
    assert await replica.describe(ModelChoice("tiny", SERVER_POLICY)) is None


async def test_failure_on_a_query_is_no_fault_of_the_query(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    replica = RerankerReplica(CHOICE)
    with replica._model:
        recipe = await replica.describe(CHOICE)
        assert recipe is not None
        query = as_item(b"no image")
        call = ReplicaCall(digest=recipe.digest, instruction="Find it.", items=[as_item("a")], query=query)
        answer = await replica.run(call)
        assert isinstance(answer.error, InputError)

        def fail(*_: Any, **__: Any) -> Any:
            raise OSError("Too many open files")

        monkeypatch.setattr(engine, "read_headers", fail)
        with pytest.raises(RuntimeError, match="the model failed on the query"):
            await replica.run(call)
        assert "Too many open files" in caplog.text

"""The replicas of the deployments that run models."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from qwen3vl_server.service import public_name

from qwen3vl.backends import BackendOwner
from qwen3vl.embedder import Embedder
from qwen3vl.errors import InputError, RecipeError, system_failure
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.recipe import Recipe
from qwen3vl.reranker import Reranker
from qwen3vl.results import ItemOutput
from qwen3vl_ray.serving.messages import ReplicaAnswer, ReplicaCall

log = logging.getLogger(__name__)

ModelT = TypeVar("ModelT", bound=BackendOwner[Any])

UNHEALTHY_FAILURES = 32
"""Number of items in a row on which the model fails before a replica is replaced: its GPU may be lost."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """What a replica loads. Replicas with equal choices have equal models.

    Attributes:
        model: Hub id, folder or `"tiny"`.
        policy: Which addresses media references may reach, and how large media may be.
        settings: Further keyword arguments of `Embedder` or `Reranker`.
    """

    model: str
    policy: MediaPolicy
    settings: Mapping[str, Any] = field(default_factory=dict)


class _Replica(Generic[ModelT]):
    """Has a model, and answers the calls of the ingress."""

    def __init__(self, choice: ModelChoice, model: ModelT) -> None:
        self._choice = choice
        self._model = model
        self._recipe = replace(model.recipe, model=public_name(model))
        self._num_failures = 0

    async def describe(self, choice: ModelChoice) -> Recipe | None:
        """Return the recipe of the model; None if the replica is of another version of the application.

        Args:
            choice: What the replicas of the caller's version load.

        Returns:
            The recipe, with the public name of the model.
        """
        return self._recipe if choice == self._choice else None

    async def run(self, call: ReplicaCall) -> ReplicaAnswer:
        """Compute the values of items. Cancelling the call drops what is left of it.

        Args:
            call: The items.

        Returns:
            Their outputs, or why there are none.

        Raises:
            RuntimeError: The model failed on the query.
        """
        if call.digest != self._recipe.digest:
            return ReplicaAnswer(error=RecipeError(f"this replica has another recipe, {self._recipe.digest}"))
        outputs = []
        try:
            async with aclosing(self._run(call)) as running:
                async for output in running:
                    self._watch(output)
                    outputs.append(output)
        except InputError as error:
            failure = system_failure(error)
            if failure is not None:  # the error would reach the ingress without this cause
                log.error("the model failed on %s", error, exc_info=failure)
                raise RuntimeError("the model failed on the query; the log of the replica says why") from None
            return ReplicaAnswer(error=error)
        return ReplicaAnswer(outputs)

    def check_health(self) -> None:
        """Tell Ray Serve whether the replica is of use.

        Raises:
            RuntimeError: The model is closed, or fails on every item.
        """
        if self._model.closed:
            raise RuntimeError("the model is closed")
        if self._num_failures >= UNHEALTHY_FAILURES:
            raise RuntimeError(f"the model failed on the last {self._num_failures} items; the log says why")

    def _run(self, call: ReplicaCall) -> AsyncGenerator[ItemOutput]:
        raise NotImplementedError

    def _watch(self, output: ItemOutput) -> None:
        """Count failures of the model; those of inputs are no sign of anything."""
        if output.error is None:
            self._num_failures = 0
        elif not isinstance(output.error.__cause__, InputError):
            self._num_failures += 1
            log.error("the model failed on %s", output.error, exc_info=output.error.__cause__)


class EmbedderReplica(_Replica[Embedder]):
    """Has an embedding model.

    Args:
        choice: The model.

    Raises:
        ModelError: It cannot be found, downloaded or loaded.
    """

    def __init__(self, choice: ModelChoice) -> None:
        super().__init__(choice, Embedder(choice.model, policy=choice.policy, **choice.settings))

    def _run(self, call: ReplicaCall) -> AsyncGenerator[ItemOutput]:
        return self._model.backend.aembed(iter(call.items), call.instruction)


class RerankerReplica(_Replica[Reranker]):
    """Has a reranker.

    Args:
        choice: The model.

    Raises:
        ModelError: It cannot be found, downloaded or loaded.
    """

    def __init__(self, choice: ModelChoice) -> None:
        super().__init__(choice, Reranker(choice.model, policy=choice.policy, **choice.settings))

    def _run(self, call: ReplicaCall) -> AsyncGenerator[ItemOutput]:
        assert call.query is not None  # noqa: S101 (`HandleReranker` sends one)
        return self._model.backend.ascore(call.query, iter(call.items), call.instruction)

"""Sends items to the replicas of a deployment, again where a replica dies."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass, replace
from typing import Any

from qwen3vl_server.errors import RequestError
from ray.exceptions import ObjectLostError, RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from qwen3vl.client.background import BackgroundCalls
from qwen3vl.client.chunks import Chunk
from qwen3vl.errors import RecipeError, ServerError
from qwen3vl.inputs import Item
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput, failed_output
from qwen3vl_ray.serving.messages import ReplicaAnswer, ReplicaCall
from qwen3vl_ray.serving.routing import content_key

MAX_ATTEMPTS = 5
"""How often items are sent before they are given up. What kills every replica that gets it must not kill all."""
PAUSE_S = 0.2
"""Seconds before a call is repeated for the first time; each further pause is as much longer."""


@dataclass(frozen=True, slots=True, eq=False)
class CallFields:
    """What the requests of a call have in common.

    Attributes:
        instruction: The instruction of the call.
        query: What its items are scored against, if anything.
    """

    instruction: str
    query: Item | None = None


class HandleBackend(BackgroundCalls):
    """Asks the replicas of a deployment for the values of items.

    Args:
        handle: The deployment.
        recipe: The recipe of its replicas' model.
        policy: Their media policy.

    Attributes:
        recipe: As above.
        policy: As above.
    """

    def __init__(self, handle: DeploymentHandle[Any], recipe: Recipe, policy: MediaPolicy) -> None:
        super().__init__()
        self.recipe = recipe
        self.policy = policy
        self._handle = handle

    @property
    def engine(self) -> Any:
        """There is none."""
        raise AttributeError(f"the engines are in the replicas of {self._handle.deployment_name}")

    async def _send_chunk(self, fields: CallFields, chunk: Chunk) -> list[ItemOutput]:
        """Send the items of a chunk, those with equal media together; return an output for each input."""
        outputs = [item for _, item in chunk if isinstance(item, ItemOutput)]
        groups: dict[str, list[tuple[int, Item]]] = defaultdict(list)
        for index, item in chunk:
            if isinstance(item, Item):
                groups[content_key(item, fields.query)].append((index, item))
        if fields.query is not None and not groups:
            groups[content_key(fields.query)] = []  # the query may be at fault as well
        # Ray Serve takes the id of a call from the context, where it is that of the ingress' request. The router of Ray
        # 2.60 mixes up concurrent calls with equal ids, and never sends some: in an empty context each has its own.
        tasks = [
            asyncio.create_task(self._send(key, fields, group), context=Context()) for key, group in groups.items()
        ]
        try:
            for outputs_of_group in await asyncio.gather(*tasks):
                outputs += outputs_of_group
        finally:  # the first error ends the call
            for task in tasks:
                task.cancel()
        return sorted(outputs, key=lambda output: output.index)

    async def _send(self, key: str, fields: CallFields, group: Sequence[tuple[int, Item]]) -> list[ItemOutput]:
        items = [item for _, item in group]
        call = ReplicaCall(digest=self.recipe.digest, instruction=fields.instruction, items=items, query=fields.query)
        try:
            answer = await self._ask(key, call)
        except ServerError as error:
            return [failed_output(index, item.name, error) for index, item in group]
        return [_at(output, group[output.index][0]) for output in answer.outputs]

    async def _ask(self, key: str, call: ReplicaCall) -> ReplicaAnswer:
        """Ask the replica for which the key stands, or another one if it dies.

        Args:
            key: What `content_key` has returned for the items.
            call: The items.

        Returns:
            An answer with outputs.

        Raises:
            InputError: The query cannot be used.
            RequestError: The model is being exchanged for another one, or the deployment takes no requests.
            ServerError: Replicas died again and again.
        """
        last: Exception | None = None
        for attempt in range(MAX_ATTEMPTS):
            await asyncio.sleep(attempt * PAUSE_S)
            # A replica with another recipe is no longer the one for which the key stands.
            session = {} if not key or isinstance(last, RecipeError) else {"session_id": key}
            response = self._handle.options(method_name="run", **session).remote(call)
            try:
                answer = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except (RayActorError, ObjectLostError) as error:
                last = error
                continue
            except BackPressureError as error:
                raise RequestError(429, f"the server is busy: {error}", code="overloaded") from error
            except DeploymentUnavailableError as error:
                raise RequestError(503, f"the model cannot be used: {error}") from error
            if answer.error is None:
                return answer  # type: ignore[no-any-return]
            if not isinstance(answer.error, RecipeError):
                raise answer.error
            last = answer.error
        if isinstance(last, RecipeError):
            raise RequestError(503, "the model is being exchanged for another one; try again") from last
        raise ServerError(
            f"replicas of {self._handle.deployment_name} died {MAX_ATTEMPTS} times while they had it; see their logs"
        ) from last


def _at(output: ItemOutput, index: int) -> ItemOutput:
    """Return an output of a group with the item's index in the caller's input."""
    return replace(output, index=index, error=None if output.error is None else output.error.at(index))

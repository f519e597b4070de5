"""What the ingress and the replicas of models send each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qwen3vl.errors import InputError, RecipeError
from qwen3vl.inputs import Item
from qwen3vl.results import ItemOutput


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplicaCall:
    """A call of a replica.

    Attributes:
        digest: Digest of the recipe that the replica's model must have.
        instruction: The instruction of the call.
        items: What is embedded or scored.
        query: What it is scored against; None for an embedding model.
    """

    digest: str
    instruction: str
    items: Sequence[Item]
    query: Item | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ReplicaAnswer:
    """The answer of a replica. Errors are values here: of exceptions, Ray would keep neither class nor cause.

    Attributes:
        outputs: An output for each item, in any order; their indices are positions in the call.
        error: Why there are none: the query cannot be used, or the model has another recipe.
    """

    outputs: Sequence[ItemOutput] = ()
    error: InputError | RecipeError | None = None

"""What a vector store does for this package, and how one is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from qwen3vl.documents import Document, Kind
from qwen3vl.errors import StoreError
from qwen3vl.recipe import Recipe


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A document and its vector, (dimension,) float32, under the id that `Document.point_id` gives it."""

    id: str
    vector: NDArray[np.float32]
    document: Document


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found: its cosine to the query, and the reranker's score where one judged."""

    id: str
    document: Document
    score: float
    rerank_score: float | None = None


@runtime_checkable
class Store(Protocol):
    """A collection of points of one recipe.  Errors are `StoreError`."""

    @property
    def recipe(self) -> Recipe | None:
        """The recipe of the collection; None while there is no collection."""

    def create(self, recipe: Recipe) -> None:
        """Makes the collection, or checks an existing one: `RecipeError` names a field that differs."""

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are stored."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Writes points; they are durable when this returns."""

    def delete(self, ids: Sequence[str]) -> None:
        """Removes points; unknown ids are passed over."""

    def scan(self) -> Iterator[tuple[str, str]]:
        """(id, source) of every point, in no promised order."""

    def search(self, vector: NDArray[np.float32], limit: int, kinds: Sequence[Kind] = ()) -> list[Hit]:
        """The nearest points, best first; of these kinds only, if any are named."""

    def count(self) -> int:
        """How many points are stored."""

    def close(self) -> None:
        """Lets go of files and connections."""


def open_store(place: str, collection: str = "qwen3vl") -> Store:
    """Opens a store: a folder or a server's URL, through the first installed integration that takes it.

    Integrations name an opener under the entry point group `qwen3vl.stores`.
    """
    openers = entry_points(group="qwen3vl.stores")
    if not openers:
        raise StoreError("no store is installed: pip install 'qwen3vl[qdrant]' brings Qdrant, embedded or as a client")
    opener = next(iter(sorted(openers, key=lambda entry: entry.name)))
    store = opener.load()(place, collection)
    if not isinstance(store, Store):
        raise StoreError(f"the integration {opener.value} opens something that is not a Store")
    return store

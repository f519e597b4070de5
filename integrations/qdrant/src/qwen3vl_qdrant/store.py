"""One Qdrant collection as a `Store`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from qwen3vl.documents import Document, Kind
from qwen3vl.errors import StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.store import Hit, Point

RECIPE = "qwen3vl_recipe"
"""The key of the collection's metadata under which the recipe is kept."""
_PAGE = 1000

P = ParamSpec("P")
R = TypeVar("R")


def _told(method: Callable[Concatenate[QdrantStore, P], R]) -> Callable[Concatenate[QdrantStore, P], R]:
    """Turns what the client raises into `StoreError` that names the collection."""

    @wraps(method)
    def call(self: QdrantStore, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(self, *args, **kwargs)
        except (ApiException, ValueError, OSError, RuntimeError) as error:
            raise StoreError(f"Qdrant collection {self.collection!r}: {error}") from error

    return call  # type: ignore[return-value]


class QdrantStore:
    """A collection of a Qdrant client: embedded in a folder, in memory, or on a server."""

    def __init__(self, client: QdrantClient, collection: str = "qwen3vl") -> None:
        self.client = client
        self.collection = collection

    @property
    def recipe(self) -> Recipe | None:
        return self._recipe()

    @_told
    def _recipe(self) -> Recipe | None:
        if not self.client.collection_exists(self.collection):
            return None
        metadata = self.client.get_collection(self.collection).config.metadata or {}
        if RECIPE not in metadata:
            raise StoreError(
                f"the collection {self.collection!r} was not made by qwen3vl: it has no recipe. Name another one"
            )
        return Recipe.from_dict(metadata[RECIPE])

    @_told
    def create(self, recipe: Recipe) -> None:
        """Makes the collection, with the recipe in its metadata, or checks the one that is there."""
        stored = self._recipe()
        if stored is not None:
            recipe.check(stored, f"the collection {self.collection!r}")
            return
        self.client.create_collection(
            self.collection,
            vectors_config=models.VectorParams(size=recipe.dimensions, distance=models.Distance.COSINE),
            metadata={RECIPE: recipe.to_dict()},
        )

    @_told
    def existing(self, ids: Sequence[str]) -> set[str]:
        found = self.client.retrieve(self.collection, list(ids), with_payload=False, with_vectors=False)
        return {str(record.id) for record in found}

    @_told
    def upsert(self, points: Sequence[Point]) -> None:
        structs = [
            models.PointStruct(id=point.id, vector=point.vector.tolist(), payload=point.document.to_payload())
            for point in points
        ]
        self.client.upsert(self.collection, structs, wait=True)

    @_told
    def delete(self, ids: Sequence[str]) -> None:
        self.client.delete(self.collection, models.PointIdsList(points=list(ids)), wait=True)

    def scan(self) -> Iterator[tuple[str, str]]:
        offset: Any = None
        while True:
            records, offset = self._page(offset)
            for record in records:
                yield str(record.id), record.payload["metadata"]["source"] if record.payload else ""
            if offset is None:
                return

    @_told
    def _page(self, offset: Any) -> tuple[list[models.Record], Any]:
        return self.client.scroll(
            self.collection, limit=_PAGE, offset=offset, with_payload=["metadata.source"], with_vectors=False
        )

    @_told
    def search(self, vector: NDArray[np.float32], limit: int, kinds: Sequence[Kind] = ()) -> list[Hit]:
        wanted = None
        if kinds:
            condition = models.FieldCondition(
                key="metadata.kind", match=models.MatchAny(any=[str(kind) for kind in kinds])
            )
            wanted = models.Filter(must=[condition])
        found = self.client.query_points(self.collection, vector.tolist(), limit=limit, query_filter=wanted)
        return [
            Hit(str(point.id), Document.from_payload(point.payload or {}), float(point.score)) for point in found.points
        ]

    @_told
    def count(self) -> int:
        return self.client.count(self.collection).count if self.client.collection_exists(self.collection) else 0

    def close(self) -> None:
        self.client.close()


def open_store(place: str, collection: str = "qwen3vl") -> QdrantStore:
    """A store in a folder (made if need be), behind an http(s) URL, or ":memory:"."""
    try:
        if place.startswith(("http://", "https://")):
            return QdrantStore(QdrantClient(url=place), collection)
        if place == ":memory:":
            return QdrantStore(QdrantClient(":memory:"), collection)
        return QdrantStore(QdrantClient(path=place), collection)
    except Exception as error:  # locks, permissions, connections: the client raises many kinds
        if "already accessed" in str(error):
            raise StoreError(f"{place} is open in another process: close that one first, or use a server") from error
        raise StoreError(f"the store {place} cannot be opened: {error}") from error

"""A database in a dict, as the smallest core: its client raises the errors that a test asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qwen3vl import Hit, Point, Recipe, Search
from qwen3vl.stores import ClientFailure, CollectionInfo, PointRef, Retry, StoreCore, Vector
from qwen3vl.stores.core import RECIPE_KEY


class FakeClientError(Exception):
    """An error of the fake client, with its meaning."""

    def __init__(self, failure: ClientFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class FakeClient:
    """Calls functions; raises the errors in `failures` first, one per call."""

    def __init__(self, failures: Sequence[ClientFailure] = ()) -> None:
        self.failures = list(failures)
        self.num_calls = 0

    def call(self, function: Any, *args: Any) -> Any:
        self.num_calls += 1
        if self.failures:
            raise FakeClientError(self.failures.pop(0))
        return function(*args)


class FakeAsyncClient(FakeClient):
    """The same, to be awaited."""

    async def call(self, function: Any, *args: Any) -> Any:
        return super().call(function, *args)


class FakeCore(StoreCore):
    database = "fake"

    def __init__(
        self, client: FakeClient | None = None, retry: Retry | None = None, collection: str = "points"
    ) -> None:
        client = client or FakeClient()
        super().__init__(client, collection, None, retry, is_async=isinstance(client, FakeAsyncClient))
        self.stored_metadata: dict[str, Any] | None = None
        self.points: dict[str, Point] = {}
        self.requests: list[int] = []
        """Number of points of each write request."""

    async def find_collection(self) -> CollectionInfo | None:
        metadata = await self.request(self.client.call, lambda: self.stored_metadata)
        return None if metadata is None else CollectionInfo(metadata, None)

    def check_collection(self, info: CollectionInfo, recipe: Recipe) -> None:
        pass

    async def create_collection(self, recipe: Recipe) -> None:
        self.stored_metadata = {RECIPE_KEY: recipe.to_dict()}

    async def fetch_ids(self, ids: Sequence[str]) -> set[str]:
        return set(ids) & self.points.keys()

    async def fetch_vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return {point_id: self.points[point_id].vector for point_id in ids if point_id in self.points}

    def payload(self, point: Point) -> dict[str, Any]:
        return point.document.to_payload()

    async def write(self, points: Sequence[Point], payloads: Sequence[Mapping[str, Any]]) -> None:
        assert len(points) == len(payloads)
        self.requests.append(len(points))
        self.points |= {point.id: point for point in points}

    async def delete_ids(self, ids: Sequence[str]) -> None:
        for point_id in ids:
            self.points.pop(point_id, None)

    def to_filter(self, where: Any, tenant: str | None) -> Any:
        return where or None

    async def delete_matching(self, native_filter: Any) -> None:
        raise NotImplementedError

    async def scan_page(self, native_filter: Any, offset: Any) -> tuple[list[PointRef], Any]:
        assert native_filter is None
        return [
            PointRef(point.id, point.document.source, point.document.locator) for point in self.points.values()
        ], None

    async def query(self, searches: Sequence[Search]) -> list[list[Hit]]:
        return [
            sorted(
                (Hit(p.id, p.document, float(np.dot(p.vector, search.vector))) for p in self.points.values()),
                key=lambda hit: -hit.score,
            )[: search.limit]
            for search in searches
        ]

    async def count_points(self) -> int:
        return len(self.points)

    async def close(self) -> None:
        pass

    def classify_error(self, error: Exception) -> ClientFailure | None:
        return error.failure if isinstance(error, FakeClientError) else None

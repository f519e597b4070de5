"""What a database integration implements so that its collections can be copied into other stores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar

from qwen3vl.errors import StoreError
from qwen3vl.stores.types import Point, StoredPoint


class CopyCore(ABC):
    """The part of a `StoreCore` that `copy_store` uses.

    Attributes:
        client: The database's client.
        tenant: Name of the tenant whose points are read and written; None uses all points.
    """

    database: ClassVar[str]
    """Name of the database, for messages."""
    has_exact_search: ClassVar[bool] = True
    """Whether `Search.exact` is obeyed."""
    client: Any
    tenant: str | None

    @property
    def location(self) -> Hashable:
        """Where the database is, in a form that can be compared: equal for all cores over the same database.

        A folder or a URL; here, the identity of the client, for a database that only this client can reach.
        """
        return id(self.client)

    async def adopt_layout(self, other: CopyCore) -> None:  # noqa: B027 (optional)
        """Lay out a collection that does not exist yet like another one, if nothing else was requested."""

    async def fetch_points(self, ids: Sequence[str]) -> list[StoredPoint]:  # noqa: ARG002
        """Return those of the ids that the tenant has stored, with all that is stored.

        Args:
            ids: Ids of points.

        Returns:
            The points, in any order.

        Raises:
            StoreError: The integration has no such method.
        """
        raise StoreError(f"a collection of {self.database} cannot be copied: its integration lacks fetch_points")

    @abstractmethod
    def payload(self, point: Point) -> dict[str, Any]:
        """Return what is stored beside a point's vector, as JSON values, with `tenant_of(point)`."""

    def payload_of(self, point: Point) -> dict[str, Any]:
        """Return what is stored beside a point's vector: what the same database had, else what `payload` returns.

        Args:
            point: The point.

        Returns:
            JSON values by key.
        """
        if isinstance(point, StoredPoint) and point.database == self.database:
            return dict(point.payload)
        return self.payload(point)

    def tenant_of(self, point: Point) -> str | None:
        """Return the tenant of a point that is to be written.

        Args:
            point: The point.

        Returns:
            The one that it had where it was read, else that of this store.
        """
        return point.tenant if isinstance(point, StoredPoint) else self.tenant

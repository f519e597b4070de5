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
        """Take the layout of another collection for one that does not exist yet, unless a layout was requested."""

    async def fetch_points(self, ids: Sequence[str]) -> list[StoredPoint]:  # noqa: ARG002
        """Return the tenant's points with these ids, with vectors and payloads; ids without a point are left out.

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
        """Return the payload of a point, which is stored beside its vector: JSON values, with `tenant_of(point)`."""

    def payload_of(self, point: Point) -> dict[str, Any]:
        """Return the payload to write for a point.

        Args:
            point: The point. It may have been read from another store.

        Returns:
            The stored payload unchanged if the point was read from the same kind of database, which keeps keys that
            others have added; else what `payload` returns.
        """
        if isinstance(point, StoredPoint) and point.database == self.database:
            return dict(point.payload)
        return self.payload(point)

    def tenant_of(self, point: Point) -> str | None:
        """Return the tenant of a point that is to be written.

        Args:
            point: The point.

        Returns:
            The tenant that it had in the store from which it was copied; for other points, that of this store.
        """
        return point.tenant if isinstance(point, StoredPoint) else self.tenant

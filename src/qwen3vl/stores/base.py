"""`AsyncStore`: a collection of vectors, with methods to await."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.documents import Document
from qwen3vl.recipe import Recipe
from qwen3vl.stores.core import StoreCore
from qwen3vl.stores.retry import Retry
from qwen3vl.stores.types import Hit, Point, PointRef, Search, StoreSearchOptions, Vector

P = ParamSpec("P")
T = TypeVar("T")


class AsyncStore:
    """A collection of points of one recipe, with methods to await.

    With an asynchronous client there are only these methods; `Store` has them and the blocking ones.

    Every method raises `StoreError` if the client fails; transient failures are retried first. A filter with an
    unsupported value is a `ValueError`.

    Args:
        core: The integration's implementation, over an asynchronous client.

    Raises:
        TypeError: The core's client is blocking.

    Example:
        ```python
        store = AsyncQdrantStore(AsyncQdrantClient(url="http://localhost:6333"), "photos")
        hits = await store.asearch(vector, 10, where={"kind": "picture"})
        ```
    """

    def __init__(self, core: StoreCore) -> None:
        if not core.is_async:
            name = type(self).__name__
            raise TypeError(
                f"{name} needs an asynchronous client, and {type(core.client).__name__} is blocking: use "
                f"{name.removeprefix('Async')}"
            )
        self.core = core

    @property
    def client(self) -> Any:
        """The database's client."""
        return self.core.client

    @property
    def collection(self) -> str:
        """Name of the collection."""
        return self.core.collection

    @property
    def tenant(self) -> str | None:
        """Name of the tenant whose points are read and written; None uses all points."""
        return self.core.tenant

    @property
    def retry(self) -> Retry:
        """How often failed requests are repeated, and after which delays."""
        return self.core.retry

    @property
    def name(self) -> str:
        """The collection, for messages."""
        return self.core.name

    def point_id(self, document: Document, recipe: Recipe) -> str:
        """Return the UUID under which a document's vector is stored.

        Args:
            document: The document.
            recipe: The collection's recipe.

        Returns:
            A UUID; it differs between tenants.
        """
        return self.core.point_id(document, recipe)

    async def arecipe(self) -> Recipe | None:
        """Return the collection's recipe; None if there is no collection."""
        return await self._arun(self.core.recipe)

    async def acreate(self, recipe: Recipe) -> None:
        """Create the collection, or check an existing one.

        Args:
            recipe: The recipe of all its vectors. `RecipeError` names the fields in which an existing one differs.
        """
        await self._arun(self.core.create, recipe)

    async def aexisting(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are stored.

        Args:
            ids: UUIDs of points.

        Returns:
            A subset of the ids.
        """
        return await self._arun(self.core.existing, ids)

    async def avectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those of the ids that are stored.

        Args:
            ids: UUIDs of points.

        Returns:
            (dimensions,) float32 by id.
        """
        return await self._arun(self.core.vectors, ids)

    async def adocuments(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents of those of the ids that are stored.

        Args:
            ids: UUIDs of points.

        Returns:
            Documents by id.
        """
        points = await self._arun(self.core.fetch_points, list(dict.fromkeys(ids))) if ids else []
        return {point.id: point.document for point in points}

    async def ahas_words(self) -> bool:
        """Return whether the collection can be searched by words, as modes `"text"` and `"hybrid"` do."""
        return await self._arun(self.core.has_words)

    async def aupsert(self, points: Sequence[Point]) -> None:
        """Write points into the existing collection; see `acreate`. They are durable when this returns.

        Args:
            points: Points; those whose id is stored already are replaced.
        """
        await self._arun(self.core.upsert, points)

    async def adelete(self, ids: Sequence[str]) -> None:
        """Delete points.

        Args:
            ids: UUIDs of points; unknown ones are ignored.
        """
        await self._arun(self.core.delete, ids)

    async def adelete_where(self, where: Any) -> None:
        """Delete the points that match a filter, such as `{"source": "old.pdf"}`.

        Args:
            where: A `Where`, or a filter of the database's own type; one without a condition is a `ValueError`.
        """
        await self._arun(self.core.delete_where, where)

    async def ascan(self, where: Any = None) -> AsyncIterator[PointRef]:
        """Iterate over the points that match a filter, in no particular order. Do not delete any meanwhile.

        Unlike a search, it misses no point.

        Args:
            where: A `Where`, or a filter of the database's own type; None is all points.

        Yields:
            Id, source and locator of each point.
        """
        offset: Any = None
        while True:
            page, offset = await self._arun(self.core.scan, where, offset)
            for point in page:
                yield point
            if offset is None:
                return

    @renamed_arguments(one_per="group_by")
    async def asearch(self, vector: Vector, limit: int = 10, **options: Unpack[StoreSearchOptions]) -> list[Hit]:
        """Return the points nearest to a vector, or best by words.

        Args:
            vector: (dimensions,) float32.
            limit: Maximum number of hits.
            **options: The other fields of `Search`.

        Returns:
            The hits, best first.
        """
        return (await self.asearch_many([Search(vector, limit, **options)]))[0]

    async def asearch_many(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Run several searches in as few requests as possible.

        Args:
            searches: The searches.

        Returns:
            The hits of each search, best first.
        """
        return await self._arun(self.core.search, searches)

    async def acount(self) -> int:
        """Return the number of stored points."""
        return await self._arun(self.core.count)

    async def adefer_index(self) -> None:
        """Prepare the existing collection, if it is empty, for many points; see `Store.defer_index`."""
        await self._arun(self.core.defer_index)

    async def abuild_index(self, progress: Callable[[float], None] | None = None) -> None:
        """Build the index if many points were written since; `aingest` does so at its end. Servers do so by themselves.

        Args:
            progress: Called now and then with the seconds that have passed.
        """
        await self._arun(self.core.build_index, progress)

    async def aclose(self) -> None:
        """Release files and connections. The client is closed for everything that uses it."""
        await self._arun(self.core.close)

    async def _arun(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        return await work(*args, **kwargs)

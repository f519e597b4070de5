"""`Store`: a collection of vectors, with blocking methods and those to await."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar, Unpack

from qwen3vl._deprecation import renamed_arguments
from qwen3vl.concurrency.executor import run_in_pool
from qwen3vl.concurrency.thread_pool import ForkSafeThreadPool
from qwen3vl.documents import Document
from qwen3vl.recipe import Recipe
from qwen3vl.stores.base import AsyncStore
from qwen3vl.stores.core import StoreCore
from qwen3vl.stores.run_sync import run_sync
from qwen3vl.stores.types import Hit, Point, PointRef, Search, StoreSearchOptions, Vector

P = ParamSpec("P")
T = TypeVar("T")

_MAX_THREADS = 32
"""Maximum number of requests to stores that event loops wait for at once."""
_pool = ForkSafeThreadPool(_MAX_THREADS, "qwen3vl-store")
"""Not asyncio's default executor, which others need: a request may wait for minutes for a server, or for an index."""


class Store(AsyncStore):
    """A collection of points of one recipe, with blocking methods.

    The methods that begin with `a` run the blocking client in a thread, so that the event loop is not blocked. If their
    task is cancelled, the thread finishes its request nevertheless.
    One object may be used by many threads at once.

    Args:
        core: The integration's implementation, over a blocking client.

    Raises:
        TypeError: The core's client is asynchronous.

    Example:
        ```python
        store = QdrantStore(QdrantClient(path="library.qdrant"), "photos")
        hits = store.search(vector, 10, where={"kind": "picture"})
        ```
    """

    def __init__(self, core: StoreCore) -> None:
        if core.is_async:
            name = type(self).__name__
            raise TypeError(
                f"{name} needs a blocking client, and {type(core.client).__name__} is asynchronous: use Async{name}"
            )
        self.core = core

    def recipe(self) -> Recipe | None:
        """Return the collection's recipe; None if there is no collection."""
        return self._run(self.core.recipe())

    def create(self, recipe: Recipe) -> None:
        """Create the collection, or check an existing one.

        Args:
            recipe: The recipe of all its vectors. `RecipeError` names the fields in which an existing one differs.
        """
        self._run(self.core.create(recipe))

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are stored.

        Args:
            ids: UUIDs of points.

        Returns:
            A subset of the ids.
        """
        return self._run(self.core.existing(ids))

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those of the ids that are stored.

        Args:
            ids: UUIDs of points.

        Returns:
            (dimensions,) float32 by id.
        """
        return self._run(self.core.vectors(ids))

    def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        """Return the documents of those of the ids that are stored.

        Args:
            ids: UUIDs of points.

        Returns:
            Documents by id.
        """
        points = self._run(self.core.fetch_points(list(dict.fromkeys(ids)))) if ids else []
        return {point.id: point.document for point in points}

    def has_words(self) -> bool:
        """Return whether the collection can be searched by words, as modes `"text"` and `"hybrid"` do."""
        return self._run(self.core.has_words())

    def upsert(self, points: Sequence[Point]) -> None:
        """Write points into the existing collection; see `create`. They are durable when this returns.

        Args:
            points: Points; those whose id is stored already are replaced.
        """
        self._run(self.core.upsert(points))

    def delete(self, ids: Sequence[str]) -> None:
        """Delete points.

        Args:
            ids: UUIDs of points; unknown ones are ignored.
        """
        self._run(self.core.delete(ids))

    def delete_where(self, where: Any) -> None:
        """Delete the points that match a filter, such as `{"source": "old.pdf"}`.

        Args:
            where: A `Where`, or a filter of the database's own type; one without a condition is a `ValueError`.
        """
        self._run(self.core.delete_where(where))

    def scan(self, where: Any = None) -> Iterator[PointRef]:
        """Iterate over the points that match a filter, in no particular order. Do not delete any meanwhile.

        Unlike a search, it misses no point.

        Args:
            where: A `Where`, or a filter of the database's own type; None is all points.

        Yields:
            Id, source and locator of each point.
        """
        offset: Any = None
        while True:
            page, offset = self._run(self.core.scan(where, offset))
            yield from page
            if offset is None:
                return

    @renamed_arguments(one_per="group_by")
    def search(self, vector: Vector, limit: int = 10, **options: Unpack[StoreSearchOptions]) -> list[Hit]:
        """Return the points nearest to a vector, or best by words.

        Args:
            vector: (dimensions,) float32.
            limit: Maximum number of hits.
            **options: The other fields of `Search`.

        Returns:
            The hits, best first.
        """
        return self.search_many([Search(vector, limit, **options)])[0]

    def search_many(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Run several searches in as few requests as possible.

        Args:
            searches: The searches.

        Returns:
            The hits of each search, best first.
        """
        return self._run(self.core.search(searches))

    def count(self) -> int:
        """Return the number of stored points."""
        return self._run(self.core.count())

    def defer_index(self) -> None:
        """Prepare the existing collection, if it is empty, for many points: they are not indexed until `build_index`.

        A server of Qdrant then takes points faster, and searches compare all of them meanwhile. Other databases, and
        collections that have points, are not changed.
        """
        self._run(self.core.defer_index())

    def build_index(self, progress: Callable[[float], None] | None = None) -> None:
        """Build the index if many points were written since; `ingest` does so at its end. Servers do so by themselves.

        Args:
            progress: Called now and then with the seconds that have passed.
        """
        self._run(self.core.build_index(progress))

    def close(self) -> None:
        """Release files and connections. The client is closed for everything that uses it."""
        self._run(self.core.close())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self.core.lock:
            return run_sync(work)

    async def _arun(self, work: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        # The thread creates the coroutine: if the task is cancelled before, nobody would await it.
        return await run_in_pool(_pool, lambda: self._run(work(*args, **kwargs)))

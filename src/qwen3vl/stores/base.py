"""What a vector store does for this package, written once for clients that block and clients that are awaited."""

from __future__ import annotations

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, TypeVar
from uuid import NAMESPACE_OID, uuid5

import numpy as np
from numpy.typing import NDArray

from qwen3vl.documents import Document
from qwen3vl.errors import StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores.retry import ClientFailure, Retry

Vector = NDArray[np.float32]
Scalar = str | int | float | bool
Where = Mapping[str, Scalar | Sequence[Scalar] | Mapping[str, float]]
"""A filter by the keys of a hit's metadata (`source`, `kind`, `place`, …), all of which must hold.

A value must be equal; of a list, one must; a mapping of gt, gte, lt, lte is a range: {"page": {"gte": 3}}.
"""
KINDS = ("qdrant", "chroma")
"""Integrations that a place may name before a colon."""
RANGE = frozenset({"gt", "gte", "lt", "lte"})
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A document and its vector, (dimension,) float32, under an id that `Store.point_id` gave it."""

    id: str
    vector: Vector
    document: Document


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that was found: its cosine to the query, and the reranker's score where one judged."""

    id: str
    document: Document
    score: float
    rerank_score: float | None = None


@dataclass(frozen=True, slots=True)
class PointRef:
    """What a scan tells of a point: enough to see whether its source still has it."""

    id: str
    source: str
    locator: str


def matches_nothing(where: Any) -> bool:
    """Whether a filter asks for one of no values, which nothing is."""
    values = where.values() if isinstance(where, Mapping) else ()
    return any(isinstance(value, (list, tuple)) and not value for value in values)


@dataclass(frozen=True, eq=False)
class Search:
    """One query of a store.

    vector: (dimension,) float32.
    where: a `Where`, or a filter of the store's own kind.
    offset: hits to pass over, for pages; threshold: the least cosine.
    one_per: a metadata key, such as "source": only the best hit of each value, so one per file.
    """

    vector: Vector
    limit: int = 10
    where: Any = None
    offset: int = 0
    threshold: float | None = None
    one_per: str | None = None

    def __post_init__(self) -> None:
        if self.limit < 1 or self.offset < 0:
            raise ValueError(f"limit ({self.limit}) must be at least 1 and offset ({self.offset}) at least 0")


class Store(ABC):
    """A collection of points of one recipe.

    Every method has an awaited twin that begins with `a` and never blocks the event loop; with a client that
    has to be awaited only the twins work, or the blocking methods from other threads within `serving`.

    Implementations write the coroutines `_recipe` to `_close` once for both kinds of client.  With a blocking
    client those coroutines never wait, and are run by stepping them.

    Errors are `StoreError`; those that may pass are tried again first.  A filter that means nothing is a `ValueError`.

    collection: its name; tenant: whose points these are, others being out of reach; retry: when to try again.
    """

    awaited: bool = False
    """Whether the client's calls are coroutines."""

    def __init__(self, collection: str, tenant: str | None = None, retry: Retry | None = None) -> None:
        self.collection = collection
        self.tenant = tenant
        self.retry = retry or Retry()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._served = 0
        self._one_at_a_time: threading.RLock | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The collection, as errors speak of it."""

    @abstractmethod
    async def _recipe(self) -> Recipe | None: ...
    @abstractmethod
    async def _create(self, recipe: Recipe) -> None: ...
    @abstractmethod
    async def _existing(self, ids: Sequence[str]) -> set[str]: ...
    @abstractmethod
    async def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]: ...
    @abstractmethod
    async def _upsert(self, points: Sequence[Point]) -> None: ...
    @abstractmethod
    async def _delete(self, ids: Sequence[str]) -> None: ...
    @abstractmethod
    async def _delete_where(self, where: Any) -> None: ...
    @abstractmethod
    async def _page(self, offset: Any) -> tuple[list[PointRef], Any]: ...
    @abstractmethod
    async def _search(self, searches: Sequence[Search]) -> list[list[Hit]]: ...
    @abstractmethod
    async def _count(self) -> int: ...
    @abstractmethod
    async def _close(self) -> None: ...
    @abstractmethod
    def _classify_error(self, error: Exception) -> ClientFailure | None:
        """What an exception of the client means; None for one that is not the client's."""

    def point_id(self, document: Document, recipe: Recipe) -> str:
        """The UUID under which a document's vector is stored: two tenants may have the same document."""
        plain = document.point_id(recipe)
        return plain if self.tenant is None else str(uuid5(NAMESPACE_OID, f"{self.tenant}\0{plain}"))

    def recipe(self) -> Recipe | None:
        """The recipe of the collection; None while there is no collection."""
        return self._run(self._recipe())

    async def arecipe(self) -> Recipe | None:
        return await self._arun(self._recipe())

    def create(self, recipe: Recipe) -> None:
        """Makes the collection, or checks an existing one: an error names the field that differs."""
        self._run(self._create(recipe))

    async def acreate(self, recipe: Recipe) -> None:
        await self._arun(self._create(recipe))

    def existing(self, ids: Sequence[str]) -> set[str]:
        """Those of the ids that are stored."""
        return self._run(self._existing(_distinct(ids))) if ids else set()

    async def aexisting(self, ids: Sequence[str]) -> set[str]:
        return await self._arun(self._existing(_distinct(ids))) if ids else set()

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """The vectors, (dimension,) float32, of those of the ids that are stored."""
        return self._run(self._vectors(_distinct(ids))) if ids else {}

    async def avectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return await self._arun(self._vectors(_distinct(ids))) if ids else {}

    def upsert(self, points: Sequence[Point]) -> None:
        """Writes points; they are durable when this returns."""
        if points:
            self._run(self._upsert(points))

    async def aupsert(self, points: Sequence[Point]) -> None:
        if points:
            await self._arun(self._upsert(points))

    def delete(self, ids: Sequence[str]) -> None:
        """Removes points; unknown ids are passed over."""
        if ids:
            self._run(self._delete(_distinct(ids)))

    async def adelete(self, ids: Sequence[str]) -> None:
        if ids:
            await self._arun(self._delete(_distinct(ids)))

    def scan(self) -> Iterator[PointRef]:
        """Every point, in no promised order; do not delete while it runs."""
        offset: Any = None
        while True:
            page, offset = self._run(self._page(offset))
            yield from page
            if offset is None:
                return

    async def ascan(self) -> AsyncIterator[PointRef]:
        offset: Any = None
        while True:
            page, offset = await self._arun(self._page(offset))
            for stored in page:
                yield stored
            if offset is None:
                return

    def delete_where(self, where: Any) -> None:
        """Removes the points that a filter holds for: {"source": "old.pdf"} for all pages of a file."""
        self._run(self._delete_where(where))

    async def adelete_where(self, where: Any) -> None:
        await self._arun(self._delete_where(where))

    def search(self, vector: Vector, limit: int = 10, **options: Any) -> list[Hit]:
        """The nearest points, best first; `options` are the other fields of `Search`."""
        return self.search_many([Search(vector, limit, **options)])[0]

    async def asearch(self, vector: Vector, limit: int = 10, **options: Any) -> list[Hit]:
        return (await self.asearch_many([Search(vector, limit, **options)]))[0]

    def search_many(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """The hits of each search, in their order."""
        return self._run(self._search(searches)) if searches else []

    async def asearch_many(self, searches: Sequence[Search]) -> list[list[Hit]]:
        return await self._arun(self._search(searches)) if searches else []

    def count(self) -> int:
        """How many points are stored."""
        return self._run(self._count())

    async def acount(self) -> int:
        return await self._arun(self._count())

    def close(self) -> None:
        """Lets go of files and connections."""
        self._run(self._close())

    async def aclose(self) -> None:
        await self._arun(self._close())

    @contextmanager
    def serving(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Lets other threads use the blocking methods with a client that is awaited in `loop`."""
        if self._served and self._loop is not loop:
            raise StoreError(f"{self.name}: its client is awaited in another event loop already")
        self._loop = loop
        self._served += 1
        try:
            yield
        finally:
            self._served -= 1
            if not self._served:
                self._loop = None

    async def _ask(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls the client, again where its trouble may pass; raises `StoreError` otherwise."""
        for failed in range(self.retry.attempts):
            try:
                found = call(*args, **kwargs)
                return await found if self.awaited else found
            except Exception as error:
                trouble = self._classify_error(error)
                if trouble is None:
                    raise
                if not trouble.transient or failed + 1 == self.retry.attempts:
                    tries = f" (tried {failed + 1} times)" if failed else ""
                    told = f"{self.name}: {trouble.reason}{tries}"
                    raise StoreError(
                        told, transient=trouble.transient, invalid_request=trouble.invalid_request
                    ) from error
                pause = self.retry.pause(failed, trouble.wait)
                await (asyncio.sleep(pause) if self.awaited else _slept(pause))
        raise AssertionError("Retry.attempts is at least 1")

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if not self.awaited:
            if self._one_at_a_time is None:
                return run_sync(work)
            with self._one_at_a_time:
                return run_sync(work)
        if self._loop is None or _running() is self._loop:
            work.close()
            raise StoreError(f"{self.name}: its client has to be awaited; use the methods that begin with `a`")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _arun(self, work: Coroutine[Any, Any, T]) -> T:
        return await (work if self.awaited else asyncio.to_thread(self._run, work))


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _distinct(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


async def _slept(seconds: float) -> None:
    time.sleep(seconds)


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    work.close()
    raise RuntimeError("the coroutine waits for something: its client has to be awaited")


def parse_location(place: str) -> tuple[str, str]:
    """("chroma", "library") of "chroma:library"; no kind where none of the known ones is named."""
    kind, _, rest = place.partition(":")
    return (kind, rest) if rest and kind in KINDS else ("", place)


def open_store(place: str, collection: str = "qwen3vl") -> Store:
    """Opens a store: a folder, ":memory:" or a server's URL; "chroma:library" names the integration first.

    Integrations name an opener under the entry point group `qwen3vl.stores`; without a name it is Qdrant's,
    or the only one that is installed.
    """
    openers = {entry.name: entry for entry in entry_points(group="qwen3vl.stores")}
    if not openers:
        raise StoreError("no store is installed: pip install 'qwen3vl[qdrant]' brings Qdrant, embedded or as a client")
    kind, place = parse_location(place)
    kind = kind or ("qdrant" if "qdrant" in openers else min(openers))
    if kind not in openers:
        raise StoreError(f"no integration {kind!r} is installed: pip install 'qwen3vl[{kind}]'")
    store = openers[kind].load()(place, collection)
    if not isinstance(store, Store):
        raise StoreError(f"the integration {openers[kind].value} opens something that is not a Store")
    return store

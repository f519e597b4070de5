"""What a database integration implements, once for blocking and for asynchronous clients."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ClassVar

from qwen3vl.documents import Document
from qwen3vl.errors import StoreError
from qwen3vl.inputs import check_text
from qwen3vl.recipe import Recipe
from qwen3vl.stores.batching import FLOAT_JSON_BYTES, MAX_REQUEST_BYTES, split_points
from qwen3vl.stores.copy_core import CopyCore
from qwen3vl.stores.failures import ClientFailure
from qwen3vl.stores.fusion import resolve_mode
from qwen3vl.stores.retry import Retry, with_retry
from qwen3vl.stores.types import CollectionInfo, Hit, Point, PointRef, Search, Vector, matches_nothing, tenant_point_id
from qwen3vl.stores.where import check_vector, check_where

RECIPE_KEY = "qwen3vl_recipe"
"""Key of the collection's metadata under which the recipe is stored, as a mapping or as JSON."""


class StoreCore(CopyCore):
    """One collection of a vector database, behind a blocking or an asynchronous client.

    `Store` and `AsyncStore` are the public classes over a core. An integration subclasses `StoreCore`, implements
    the abstract methods once, and calls its client through `request` only: that awaits the client if `is_async` is
    true, classifies errors, and retries. With a blocking client no coroutine waits: `Store` needs no event loop.

    Args:
        client: The database's client.
        collection: Name of the collection.
        tenant: Name of the tenant whose points alone are found, counted, scanned and deleted; None uses all points.
        retry: How often failed requests are repeated, and after which delays; None is `Retry()`.
        is_async: Whether the client's methods are coroutines.

    Raises:
        InputError: The name of the collection or of the tenant has a lone surrogate.
        ValueError: The name of the collection is empty.
    """

    not_created_hint: ClassVar[str] = ""
    """What else may be the reason if a collection has no recipe, for the message."""
    words_hint: ClassVar[str] = "its integration has no search by words"
    """How to get a collection that can be searched by words, for the message."""

    def __init__(
        self, client: Any, collection: str, tenant: str | None, retry: Retry | None, *, is_async: bool
    ) -> None:
        if not collection:
            raise ValueError("the collection's name is empty: pass a name of at least one character")
        self.client = client
        self.collection = check_text(collection, "the collection's name")
        self.tenant = tenant if tenant is None else check_text(tenant, "the tenant's name")
        self.retry = retry or Retry()
        self.is_async = is_async
        self.max_request_points = 1024
        self.lock: AbstractContextManager[Any] = nullcontext()
        """Held while a blocking client is used, for clients that are not thread-safe."""
        self.timeout_s: float | None = None
        """Seconds after which an attempt of an asynchronous client fails; None leaves it to the client."""
        self.read_only_folder = ""
        """The folder of a store that cannot be written; empty for other stores."""

    @property
    def name(self) -> str:
        """The collection, for messages."""
        return f"the {self.database} collection {self.collection!r}"

    def point_id(self, document: Document, recipe: Recipe) -> str:
        """Return the UUID of a document's point, which differs between tenants.

        Args:
            document: The document.
            recipe: The collection's recipe.

        Returns:
            The id.
        """
        return tenant_point_id(document, recipe, self.tenant)

    # What `Store` and `AsyncStore` call.

    async def recipe(self) -> Recipe | None:
        """Return the collection's recipe; None if there is no collection.

        Returns:
            The recipe, after the collection was checked against it.

        Raises:
            StoreError: The collection was created by others, or cannot be read.
            RecipeError: The collection does not fit its recipe.
        """
        info = await self.find_collection()
        if info is None:
            return None
        if RECIPE_KEY not in info.metadata:
            raise StoreError(
                f"{self.name} was not made by qwen3vl: its metadata have no recipe. Use another collection name."
                f"{self.not_created_hint}"
            )
        stored = info.metadata[RECIPE_KEY]
        recipe = Recipe.from_dict(json.loads(stored) if isinstance(stored, str) else stored)
        self.check_collection(info, recipe)
        return recipe

    async def create(self, recipe: Recipe) -> None:
        """Create the collection, or check an existing one against the recipe; then create missing payload indexes.

        Args:
            recipe: The recipe of all its vectors.

        Raises:
            StoreError: The collection cannot be created, or was created by others.
            RecipeError: It exists with another recipe; the message names the fields that differ.
        """
        stored = await self.recipe()
        if stored is None:
            self.check_writable()
            try:
                await self.create_collection(recipe)
            except StoreError:
                # Another process may have created it at the same moment.
                stored = await self.recipe()
                if stored is None:
                    raise
            else:
                stored = await self.recipe()
        if stored is None:
            raise StoreError(f"{self.name} does not exist although it was just created: the server has lost it")
        recipe.check(stored, self.name)
        await self.create_indexes()

    async def existing(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are stored; they may repeat."""
        return await self.fetch_ids(list(dict.fromkeys(ids))) if ids else set()

    async def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those of the ids that are stored.

        Args:
            ids: UUIDs of points; they may repeat.

        Returns:
            (dimensions,) float32 by id.
        """
        return await self.fetch_vectors(list(dict.fromkeys(ids))) if ids else {}

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points in requests of bounded size. They are durable when this returns; if it fails, some may be.

        Args:
            points: Points; those whose id is stored already are replaced.
        """
        self.check_writable()
        batches = split_points(
            points, self.payload_of, self.request_bytes, max_points=self.max_request_points, max_bytes=MAX_REQUEST_BYTES
        )
        for batch, payloads in batches:
            await self.write(batch, payloads)

    async def delete(self, ids: Sequence[str]) -> None:
        """Delete points; unknown ids and those of other tenants are ignored.

        Args:
            ids: UUIDs of points.
        """
        self.check_writable()
        if ids:
            await self.delete_ids(list(dict.fromkeys(ids)))

    async def delete_where(self, where: Any) -> None:
        """Delete the points that match a filter: none if `matches_nothing` is true of it.

        Args:
            where: A `Where`, or a filter of the database's own type.

        Raises:
            ValueError: The filter has no condition, or has an unsupported value.
        """
        check_where(where)
        if matches_nothing(where):
            return
        if self.to_filter(where, None) is None:
            raise ValueError("delete_where needs a filter: to remove everything, delete the collection itself")
        self.check_writable()
        await self.delete_matching(self.to_filter(where, self.tenant))

    async def scan(self, where: Any, offset: Any) -> tuple[list[PointRef], Any]:
        """Return a page of the points that match a filter (None matches all), and the next offset; see `scan_page`."""
        check_where(where)
        return (
            ([], None) if matches_nothing(where) else await self.scan_page(self.to_filter(where, self.tenant), offset)
        )

    async def search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Run several searches.

        Args:
            searches: The searches.

        Returns:
            The hits of each search, best first, in the order of the searches.

        Raises:
            ValueError: A filter has an unsupported value, a search by words has none, or a vector is not finite.
            StoreError: The collection cannot be searched by words, or cannot be read.
        """
        for search in searches:
            check_where(search.where)
        has_words = any(search.text or search.mode not in (None, "dense") for search in searches) and (
            await self.has_words()
        )
        searches = [resolve_mode(search, self.name, has_words, self.words_hint) for search in searches]
        for search in searches:
            check_vector(search)
        possible = [search for search in searches if not matches_nothing(search.where)]
        results = iter(await self.query(possible) if possible else [])
        return [[] if matches_nothing(search.where) else next(results) for search in searches]

    async def count(self) -> int:
        """Return the number of stored points, of the tenant if there is one; 0 if there is no collection."""
        return 0 if await self.find_collection() is None else await self.count_points()

    # What an integration implements.

    @abstractmethod
    async def find_collection(self) -> CollectionInfo | None:
        """Return the collection; None if it does not exist."""

    @abstractmethod
    def check_collection(self, info: CollectionInfo, recipe: Recipe) -> None:
        """Raise `RecipeError` if the collection (vector size, distance) does not fit its recipe."""

    @abstractmethod
    async def create_collection(self, recipe: Recipe) -> None:
        """Create the collection for cosine similarity, with the recipe under `RECIPE_KEY` of its metadata."""

    async def has_words(self) -> bool:
        """Return whether the collection can be searched by words: `query` then gets searches of each `Mode`."""
        return False

    async def create_indexes(self) -> None:
        """Create payload indexes that are missing. Called for new and existing collections."""

    async def defer_index(self) -> None:
        """Do not index points of an empty collection until `build_index` is called, if the database can do so."""

    async def build_index(self, progress: Callable[[float], None] | None = None) -> None:
        """Build what makes searches fast, if many points are new; `progress` gets the seconds that have passed."""

    @abstractmethod
    async def fetch_ids(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids (distinct, at least one) that the tenant has stored."""

    @abstractmethod
    async def fetch_vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors, (dimensions,) float32, of those of the ids that the tenant has stored."""

    def request_bytes(self, point: Point, payload: Mapping[str, Any]) -> int:
        """Return the approximate size of a point in a write request, in bytes: an upper bound for JSON requests."""
        return FLOAT_JSON_BYTES * len(point.vector) + len(json.dumps(payload))

    @abstractmethod
    async def write(self, points: Sequence[Point], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points and their payloads in one request, and wait until they are durable."""

    @abstractmethod
    async def delete_ids(self, ids: Sequence[str]) -> None:
        """Delete those of the ids (distinct, at least one) that the tenant has stored."""

    @abstractmethod
    def to_filter(self, where: Any, tenant: str | None) -> Any:
        """Return a filter of the database's type that includes the tenant; raise `ValueError` for unsupported values.

        None if it has no condition, also if `where` is such a filter in the database's own type: `delete_where` must
        refuse it. `check_where(where)` has passed, and `matches_nothing(where)` is false.
        """

    @abstractmethod
    async def delete_matching(self, native_filter: Any) -> None:
        """Delete the points that match a filter of the database's type, which includes the tenant."""

    @abstractmethod
    async def scan_page(self, native_filter: Any, offset: Any) -> tuple[list[PointRef], Any]:
        """Return points that match, from an offset (None at first), and the next offset (None at the end).

        The filter includes the tenant. No point may be left out, as an index of vectors might do.
        """

    @abstractmethod
    async def query(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Return the hits of each search (at least one), best first, within the tenant."""

    @abstractmethod
    async def count_points(self) -> int:
        """Return the number of the tenant's points in the existing collection."""

    @abstractmethod
    async def close(self) -> None:
        """Release files and connections."""

    @abstractmethod
    def classify_error(self, error: Exception) -> ClientFailure | None:
        """Return the meaning of the client's exception; None for exceptions that are not the client's."""

    # What an integration uses.

    async def request(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call the client; repeat the call after transient failures, as `retry` says.

        Args:
            call: A method of the client.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Returns:
            What the call returns; the result of the coroutine if the client is asynchronous.

        Raises:
            StoreError: The call failed and is not repeated any more. The client's exception is its cause. An exception
                for which `classify_error` returns None passes unchanged.
        """
        return await with_retry(
            partial(call, *args, **kwargs),
            self.retry,
            self.classify_error,
            name=self.name,
            is_async=self.is_async,
            timeout_s=self.timeout_s,
        )

    def check_writable(self) -> None:
        """Raise `StoreError` if the store's folder cannot be written."""
        if self.read_only_folder:
            raise StoreError(
                f"{self.name} can only be searched, because {self.read_only_folder} cannot be written by this process: "
                "make the folder and its files writable (mount it read-write), or copy the folder and open the copy"
            )

    def missing_error(self) -> StoreError:
        """Return the error of reading a collection that does not exist."""
        return StoreError(f"{self.name} does not exist: nothing was ingested into it yet")

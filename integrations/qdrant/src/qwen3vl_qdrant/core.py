"""What `QdrantStore` and `AsyncQdrantStore` share: one collection behind either kind of client."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.client_base import QdrantBase
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from qwen3vl.errors import RecipeError
from qwen3vl.recipe import Recipe
from qwen3vl.stores import ClientFailure, CollectionInfo, Hit, Point, Retry, Search
from qwen3vl.stores.batching import FLOAT_JSON_BYTES
from qwen3vl.stores.copy_core import CopyCore
from qwen3vl.stores.core import RECIPE_KEY
from qwen3vl.stores.folders import remove_links
from qwen3vl.stores.payloads.llama_index import llama_index_payload
from qwen3vl_qdrant import failures, graph
from qwen3vl_qdrant.dense_search import search_vectors
from qwen3vl_qdrant.edge.backend import EdgeBackend
from qwen3vl_qdrant.embedded import back_up, storage_of
from qwen3vl_qdrant.filters import TENANT_KEY, to_filter
from qwen3vl_qdrant.group_search import search_groups
from qwen3vl_qdrant.layout import Layout, check_vectors, to_lists
from qwen3vl_qdrant.left_points import check_left_points
from qwen3vl_qdrant.reading import QdrantReader, engine_ids, ids_to_write
from qwen3vl_qdrant.word_search import search_words

_PAYLOAD_INDEXES = {
    "metadata.source": models.PayloadSchemaType.KEYWORD,
    "metadata.kind": models.PayloadSchemaType.KEYWORD,
    TENANT_KEY: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
}
FLOATS_PER_WORD = 2
"""Size of a word in a sparse vector, its index and its weight, in floats."""
_local_locks: WeakKeyDictionary[Any, RLock] = WeakKeyDictionary()


class QdrantCore(QdrantReader):
    """One collection of a Qdrant client.

    Args:
        client: The client.
        collection: Name of the collection.
        layout: What is stored beside the full vectors; None means that of an existing collection, or full vectors only
            for a new one (with `tenants=True` if there is a tenant).
        tenant: Name of the tenant whose points are read and written; None uses all points.
        retry: How often failed requests are repeated, and after which delays; None is `Retry()`.

    Attributes:
        layout: The layout that was passed, else the collection's; None until the collection was created or read.
        is_local: Whether the client is in Qdrant's local mode: embedded in this process, in a folder or in memory.
        folder: The folder of a client in local mode; None for a server, and in memory.
    """

    database = "Qdrant"
    words_hint = (
        "it has no sparse vectors of words. Copy it into a new collection that has Layout(hybrid=True): "
        "qwen3vl copy --hybrid, or copy_store. Nothing is embedded again"
    )
    not_created_hint = (
        " If it was created just now, the server is older than 1.16 and does not store metadata: upgrade it."
    )

    def __init__(
        self,
        client: QdrantClient | AsyncQdrantClient | QdrantBase,
        collection: str,
        layout: Layout | None,
        tenant: str | None,
        retry: Retry | None,
    ) -> None:
        super().__init__(client, collection, tenant, retry, is_async=isinstance(client, AsyncQdrantClient))
        self.layout = layout
        self._is_checked = False
        engine: Any = getattr(client, "_client", client)
        self.is_local = isinstance(engine, (QdrantLocal, AsyncQdrantLocal))
        self.folder = Path(engine.location) if self.is_local and engine.persistent else None
        if self.is_local:
            # Local mode is not thread-safe: all stores of one client share a lock.
            self.lock = _local_locks.setdefault(engine, RLock())

    @property
    def location(self) -> Hashable:
        """The folder or the URL; the client if it is in memory."""
        if self.folder is not None:
            return self.folder.resolve()
        # The client is an `EdgeBackend` itself in an `EdgeCore`, and has one if `edge_client` has returned it.
        backend = getattr(self.client, "backend", self.client)
        if isinstance(backend, EdgeBackend):
            return backend.folder.path
        return getattr(getattr(self.client, "_client", None), "rest_uri", id(self.client))

    async def adopt_layout(self, other: CopyCore) -> None:
        """Take the layout of another Qdrant collection for a new one, unless one was passed."""
        if self.layout is None and isinstance(other, QdrantCore) and await self.find_collection() is None:
            self.layout = other.layout

    async def find_collection(self) -> CollectionInfo | None:
        """Return the collection; None if it does not exist.

        Returns:
            The collection.

        Raises:
            StoreError: It lacks the vector that qwen3vl writes, or cannot be read.
        """
        if not await self.request(self.client.collection_exists, self.collection):
            return None
        info = await self.request(self.client.get_collection, self.collection)
        check_vectors(info.config.params, self.name)
        return CollectionInfo(info.config.metadata or {}, info)

    def check_collection(self, info: CollectionInfo, recipe: Recipe) -> None:
        """Check the collection's vectors against its recipe, and this object's layout against the collection's.

        Args:
            info: The collection. If this object has no layout yet, it takes the collection's.
            recipe: The collection's recipe.

        Raises:
            RecipeError: Vector size, distance or layout differ. In local mode, which stores no other setting of the
                layout, only its `short` and `hybrid` are compared.
        """
        config = info.description.config
        size, distance, layout = Layout.from_config(config.params, config, info.metadata)
        for field, actual, expected in (("size", size, recipe.dimensions), ("distance", distance, "Cosine")):
            if actual != expected:
                raise RecipeError(f"{self.name}: the vectors' {field} is {actual}, and its recipe says {expected}")
        requested = self.layout
        # Local mode has no index, and does not store settings that it ignores.
        for field in ("short", "hybrid") if self.is_local else ("short", "hybrid", "quantization", "tenants"):
            if requested is not None and getattr(requested, field) != getattr(layout, field):
                raise RecipeError(
                    f"{self.name}: its layout's {field} is {getattr(layout, field)!r}, and "
                    f"{getattr(requested, field)!r} is requested. Leave the layout out to use the collection's, or "
                    "use another collection"
                )
        if requested is None:
            self.layout = layout
        self._is_checked = True

    async def create_collection(self, recipe: Recipe) -> None:
        """Create the collection with this object's layout, or the default one.

        In a folder, points that are left of a lost collection of this name are taken over.

        Args:
            recipe: Stored in the collection's metadata.

        Raises:
            StoreError: Such points do not fit the recipe or the layout, or the collection cannot be created.
            ValueError: `short` of the layout is not less than the recipe's dimensions.
        """
        layout = self.layout or Layout(tenants=self.tenant is not None)
        if self.folder is not None:
            check_left_points(storage_of(self.folder, self.collection), recipe, layout)
        await self.request(
            self.client.create_collection,
            self.collection,
            metadata={RECIPE_KEY: recipe.to_dict(), **layout.metadata},
            **layout.collection_arguments(recipe.dimensions),
        )
        if self.folder is not None:
            back_up(self.folder)

    async def create_indexes(self) -> None:
        """Create missing payload indexes: the process that created the collection may have been killed before.

        Qdrant in local mode has no indexes.
        """
        if self.is_local:
            return
        info = await self.request(self.client.get_collection, self.collection)
        for key, schema in _PAYLOAD_INDEXES.items():
            if key not in (info.payload_schema or {}):
                await self.request(self.client.create_payload_index, self.collection, key, schema, wait=True)

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points in requests of bounded size, after the collection was checked once.

        They are durable when this returns; if it fails, some may be.

        Args:
            points: The points; those whose id is stored already are replaced.

        Raises:
            RecipeError: The collection does not fit its recipe, or its layout is not the one that was passed.
            StoreError: The collection was created by others, or the points cannot be written.
        """
        if points:
            if not self._is_checked:
                await self.recipe()
            await super().upsert(points)

    async def defer_index(self) -> None:
        """Let a server build no HNSW graph of an empty collection until `build_index`; see `StoreCore.defer_index`."""
        if not (await self._load_layout()).tenants and await self._count(None) == 0:
            await graph.defer(self)

    async def build_index(self, progress: Callable[[float], None] | None = None) -> None:
        """Index new points of a folder if there are enough; a server does so itself, but for `defer_index`."""
        await graph.resume(self)
        if hasattr(self.client, "build_index") and await self.request(self.client.collection_exists, self.collection):
            await self.request(self.client.build_index, self.collection, progress)

    def payload(self, point: Point) -> dict[str, Any]:
        """Return the payload with LangChain's keys, LlamaIndex's, the URL of an image, and the tenant."""
        document = point.document
        payload = {**document.to_payload(), **llama_index_payload(document, point.id, "doc_id")}
        image = document.image or ""
        # Qdrant's dashboard shows images by URLs at the top of a payload. A source is there already, in `doc_id`.
        if image.lower().startswith(("http://", "https://")) and image.partition("#")[0] != document.source:
            payload["image"] = image
        tenant = self.tenant_of(point)
        return payload if tenant is None else {**payload, TENANT_KEY: tenant}

    def request_bytes(self, point: Point, payload: Mapping[str, Any]) -> int:
        """Return an upper bound of the bytes that a point with all its vectors takes in a JSON request."""
        layout = self.layout or Layout()
        num_words = len(point.document.words) // 2 + 1 if layout.hybrid else 0
        num_values = (layout.short or 0) + FLOATS_PER_WORD * num_words
        return super().request_bytes(point, payload) + FLOAT_JSON_BYTES * num_values

    async def write(self, points: Sequence[Point], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points in one request, and wait until they are durable."""
        layout = await self._load_layout()
        structs = [
            models.PointStruct(
                id=point_id, vector=to_lists(layout.to_vectors(point.vector, point.document)), payload=payload
            )
            for point_id, point, payload in zip(ids_to_write(points), points, payloads, strict=True)
        ]
        await self.request(self.client.upsert, self.collection, structs, wait=True)

    async def delete_ids(self, ids: Sequence[str]) -> None:
        """Delete those of the ids that are the tenant's."""
        native_ids: Any = engine_ids(ids)
        selector: Any = models.PointIdsList(points=native_ids)
        if self.tenant is not None:
            has_id = models.Filter(must=[models.HasIdCondition(has_id=native_ids)])
            selector = models.FilterSelector(filter=to_filter(has_id, self.tenant) or has_id)
        await self.request(self.client.delete, self.collection, selector, wait=True)

    def to_filter(self, where: Any, tenant: str | None) -> models.Filter | None:
        """Return a filter in Qdrant's form; see `qwen3vl_qdrant.filters.to_filter`."""
        return to_filter(where, tenant)

    async def delete_matching(self, native_filter: Any) -> None:
        """Delete the points that match a filter, which already includes the tenant."""
        selector = models.FilterSelector(filter=native_filter)
        await self.request(self.client.delete, self.collection, selector, wait=True)

    async def query(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Run all searches in one request, or each in its own if any is grouped; those by words in two requests.

        Later pages, and those whose last hit has the score of other points, take further ones.

        Qdrant in local mode ignores quantization: it searches exactly.
        """
        layout = await self._load_layout()
        if self.is_local:
            layout = replace(layout, quantization=None)
        dense = iter(await self._query_dense([search for search in searches if search.mode == "dense"], layout))
        others = iter(await search_words(self, layout, [search for search in searches if search.mode != "dense"]))
        return [next(dense if search.mode == "dense" else others) for search in searches]

    async def has_words(self) -> bool:
        """Return whether the collection has sparse vectors."""
        return bool((await self._load_layout()).hybrid)

    def to_query(self, **arguments: Any) -> models.QueryRequest:
        """Return a request; see `models.QueryRequest`."""
        return models.QueryRequest(**arguments)

    async def _query_dense(self, searches: Sequence[Search], layout: Layout) -> list[list[Hit]]:
        if any(search.group_by is not None for search in searches):
            return [await self._query_one(search, layout) for search in searches]
        return await search_vectors(self, layout, searches)

    async def _query_one(self, search: Search, layout: Layout) -> list[Hit]:
        if search.group_by is None:
            return (await search_vectors(self, layout, [search]))[0]
        return await search_groups(self, layout, search)

    async def count_points(self) -> int:
        """Return the exact number of the tenant's points."""
        return await self._count(self.tenant)

    async def _count(self, tenant: str | None) -> int:
        count_filter = to_filter(None, tenant)
        result = await self.request(self.client.count, self.collection, count_filter=count_filter, exact=True)
        return int(result.count)

    async def close(self) -> None:
        """Close the client."""
        await self.request(self.client.close)
        remove_links(self.client)

    def classify_error(self, error: Exception) -> ClientFailure | None:
        """Return the meaning of an exception; see `qwen3vl_qdrant.failures.classify_error`."""
        return failures.classify_error(error)

    async def _load_layout(self) -> Layout:
        """Return the layout, read from the collection if it is not known yet; `Layout()` if there is no collection."""
        if self.layout is None:
            await self.recipe()
        return self.layout or Layout()

    def query_arguments(self, search: Search, layout: Layout) -> dict[str, Any]:
        """Return the arguments of a search within the tenant; see `Layout.query_arguments`."""
        arguments = layout.query_arguments(search, to_filter(search.where, self.tenant))
        if self.is_local:  # it would warn about search parameters
            arguments.pop("params", None)
        return arguments

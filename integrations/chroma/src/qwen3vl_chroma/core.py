"""What `ChromaStore` and `AsyncChromaStore` share: one collection behind either kind of client."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from chromadb.api import AsyncBaseAPI
from chromadb.api.base_http_client import BaseHTTPClient
from chromadb.errors import NotFoundError

from qwen3vl.errors import RecipeError, StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores import (
    ClientFailure,
    CollectionInfo,
    Hit,
    Point,
    PointRef,
    Retry,
    Search,
    StoreCore,
    StoredPoint,
    Vector,
)
from qwen3vl.stores.core import RECIPE_KEY
from qwen3vl.stores.failures import timeout_failure
from qwen3vl.stores.folders import remove_links
from qwen3vl.stores.payloads.llama_index import llama_index_payload
from qwen3vl.stores.types import MAX_GROUP_CANDIDATES
from qwen3vl_chroma import failures
from qwen3vl_chroma.clients import TIMEOUT_SETTING, set_timeout
from qwen3vl_chroma.filters import TENANT_KEY, split_where, to_where
from qwen3vl_chroma.functions import Qwen3VLEmbeddingFunction
from qwen3vl_chroma.payload import best_per_group, flatten_metadata, to_hits, to_stored_point

_SCAN_PAGE_POINTS = 1000
_MAX_REQUEST_IDS = 5000
"""Maximum number of ids of a request that reads or deletes: SQLite limits the variables of a statement to 32,766."""
_DEFAULT_REQUEST_POINTS = 1000
"""Maximum number of points of a request if the client names no limit."""
_SEARCH_GROWTH_FACTOR = 4
"""Factor by which a search is enlarged until it has enough groups, or `MAX_GROUP_CANDIDATES` points."""


class ChromaCore(StoreCore):
    """One collection of a Chroma client.

    Args:
        client: The client.
        collection: Name of the collection.
        tenant: Name of the tenant whose points are read and written; None uses all points.
        retry: How often failed requests are repeated, and after which delays; None is `Retry()`.
        timeout_s: Seconds after which a request to a server fails.

    Raises:
        ValueError: `timeout_s` is not positive.
    """

    database = "Chroma"
    has_exact_search = False
    words_hint = (
        "Chroma ranks by words in its cloud only. Filter by a word, where={'$contains': 'AX-7000'}, or use Qdrant with "
        "Layout(hybrid=True)"
    )

    def __init__(self, client: Any, collection: str, tenant: str | None, retry: Retry | None, timeout_s: float) -> None:
        super().__init__(client, collection, tenant, retry, is_async=isinstance(client, AsyncBaseAPI))
        if not timeout_s > 0:
            raise ValueError(f"timeout_s is {timeout_s}; it must be more than 0")
        self.timeout_s = timeout_s
        set_timeout(client, timeout_s)
        server = getattr(client, "_server", None)
        self._is_embedded = server is not None and not isinstance(server, BaseHTTPClient)
        self.max_request_points = 0
        self._chroma_collection: Any = None

    @property
    def location(self) -> Hashable:
        """The client's folder, URL or memory, with Chroma's own tenant and database."""
        client = self.client
        return getattr(client, "_identifier", id(client)), client.tenant, client.database

    async def find_collection(self) -> CollectionInfo | None:
        """Return the collection; None if it does not exist."""
        try:
            collection = await self.request(self.client.get_collection, self.collection, embedding_function=None)
        except StoreError as error:
            if isinstance(error.__cause__, NotFoundError):
                return None
            raise
        self._chroma_collection = collection
        return CollectionInfo(collection.metadata or {}, collection)

    def check_collection(self, info: CollectionInfo, recipe: Recipe) -> None:  # noqa: ARG002 (Chroma keeps no size)
        """Check that the collection compares vectors by cosine.

        Args:
            info: The collection.
            recipe: Its recipe.

        Raises:
            RecipeError: The collection compares vectors by another distance.
        """
        configuration = info.description.configuration_json or {}
        space = (configuration.get("hnsw") or configuration.get("spann") or {}).get("space", "l2")
        if space != "cosine":
            raise RecipeError(f"{self.name}: its space is {space!r}, and qwen3vl's vectors need 'cosine'")

    async def create_collection(self, recipe: Recipe) -> None:
        """Create the collection. If another process has just created it, leave it unchanged.

        Args:
            recipe: Stored in the collection's metadata as JSON, because Chroma's metadata are flat.
        """
        await self.request(
            self.client.get_or_create_collection,
            self.collection,
            configuration={"hnsw": {"space": "cosine"}},
            metadata={RECIPE_KEY: json.dumps(recipe.to_dict())},
            # Stored by name and settings, so that plain Chroma can search the collection by text and image.
            embedding_function=Qwen3VLEmbeddingFunction.of(recipe),
        )

    async def fetch_ids(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are stored."""
        return {
            point_id
            for result in await self._get_ids(ids, where=to_where(None, self.tenant))
            for point_id in result["ids"]
        }

    async def fetch_vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Return the vectors of those of the ids that are stored."""
        return {
            point_id: np.asarray(vector, dtype=np.float32)
            for result in await self._get_ids(ids, "embeddings", where=to_where(None, self.tenant))
            for point_id, vector in zip(result["ids"], result["embeddings"], strict=True)
        }

    async def fetch_points(self, ids: Sequence[str]) -> list[StoredPoint]:
        """Return those of the ids that are stored, with vectors, texts and metadata."""
        keys = ("embeddings", "documents", "metadatas")
        return [
            to_stored_point(point_id, np.asarray(vector, dtype=np.float32), text, metadata, self.database)
            for result in await self._get_ids(ids, *keys, where=to_where(None, self.tenant))
            for point_id, vector, text, metadata in zip(*(result[key] for key in ("ids", *keys)), strict=True)
        ]

    async def upsert(self, points: Sequence[Point]) -> None:
        """Write points in requests within the client's own limit.

        Args:
            points: The points.
        """
        if not points:
            return
        if not self.max_request_points:
            limit = int(await self.request(self.client.get_max_batch_size))
            self.max_request_points = limit if limit > 0 else _DEFAULT_REQUEST_POINTS
        await super().upsert(points)

    def payload(self, point: Point) -> dict[str, Any]:
        """Return flattened metadata for filters, and the original metadata as JSON in `_node_content`.

        Metadata of the document under the keys that this store itself writes are in the latter only.
        """
        metadata = {
            **flatten_metadata(point.document.to_payload()["metadata"]),
            **llama_index_payload(point.document, point.id, "document_id"),
        }
        metadata.pop(TENANT_KEY, None)  # metadata of the document, which must not choose who finds it
        tenant = self.tenant_of(point)
        return metadata if tenant is None else {**metadata, TENANT_KEY: tenant}

    def request_bytes(self, point: Point, payload: Mapping[str, Any]) -> int:
        """Return the approximate size of a point in a write request, with its text and URI, in bytes."""
        document = point.document
        extra = json.dumps([document.text, document.image or document.video])
        return super().request_bytes(point, payload) + len(extra)

    async def write(self, points: Sequence[Point], payloads: Sequence[dict[str, Any]]) -> None:
        """Write points in one request, and wait until they are durable."""
        ids = [point.id for point in points]
        stored = await self._get(ids=ids, include=["metadatas"])
        # Chroma keeps the metadata of a stored point that the new ones lack, unless they are None.
        former = dict(zip(stored["ids"], stored["metadatas"], strict=True))
        metadatas = [
            {**dict.fromkeys(former.get(point_id) or ()), **payload}
            for point_id, payload in zip(ids, payloads, strict=True)
        ]
        await self.request(
            (await self._existing_collection()).upsert,
            ids=ids,
            embeddings=[point.vector for point in points],
            documents=[point.document.text for point in points],
            metadatas=metadatas,
            uris=[point.document.image or point.document.video for point in points],
        )

    async def delete_ids(self, ids: Sequence[str]) -> None:
        """Delete the points with these ids; points of other tenants are not deleted."""
        collection, where = await self._existing_collection(), to_where(None, self.tenant)
        for part in _split(ids):
            await self.request(collection.delete, ids=part, where=where)

    def to_filter(self, where: Any, tenant: str | None) -> dict[str, Any] | None:
        """Return Chroma's `where` and `where_document`, as far as a filter has conditions for them."""
        about_metadata, about_text = split_where(where)
        filters = {"where": to_where(about_metadata, tenant), "where_document": about_text}
        return {name: value for name, value in filters.items() if value is not None} or None

    async def delete_matching(self, native_filter: Any) -> None:
        """Delete the points that match a filter."""
        await self.request((await self._existing_collection()).delete, **native_filter)

    async def scan_page(self, native_filter: Any, offset: Any) -> tuple[list[PointRef], Any]:
        """Return a page of the points that match, and the offset of the next page; None after the last page."""
        start = offset or 0
        arguments = {"limit": _SCAN_PAGE_POINTS, "offset": start, "include": ["metadatas"]}
        result = await self._get(**arguments, **(native_filter or {}))
        points = [
            PointRef.from_metadata(point_id, metadata or {})
            for point_id, metadata in zip(result["ids"], result["metadatas"], strict=True)
        ]
        return points, start + _SCAN_PAGE_POINTS if len(points) == _SCAN_PAGE_POINTS else None

    async def query(self, searches: Sequence[Search]) -> list[list[Hit]]:
        """Run the searches one after another: their filters may differ."""
        return [await self._query(search) for search in searches]

    async def _query(self, search: Search) -> list[Hit]:
        """Run one search. Chroma has no offset, threshold or grouping: request more hits until enough are left."""
        where, where_document = split_where(search.where)
        num_needed = num_requested = search.limit + search.offset
        while True:
            result = await self.request(
                (await self._existing_collection()).query,
                query_embeddings=[search.vector],
                n_results=num_requested,
                where=to_where(where, self.tenant),
                where_document=where_document,
                include=["metadatas", "documents", "distances"],
            )
            hits = to_hits(result)
            best = hits if search.group_by is None else best_per_group(hits, search.group_by)
            if len(best) >= num_needed or len(hits) < num_requested or num_requested >= MAX_GROUP_CANDIDATES:
                break
            num_requested = min(num_requested * _SEARCH_GROWTH_FACTOR, MAX_GROUP_CANDIDATES)
        page = best[search.offset : num_needed]
        return page if search.threshold is None else [hit for hit in page if hit.score >= search.threshold]

    async def count_points(self) -> int:
        """Return the number of the tenant's points."""
        if self.tenant is None:
            return int(await self.request((await self._existing_collection()).count))
        result = await self._get(where=to_where(None, self.tenant), include=[])
        return len(result["ids"])

    async def close(self) -> None:
        """Close the client, if it can be closed."""
        close = getattr(self.client, "close", None)
        if close is not None:
            await self.request(close)
        remove_links(self.client)

    def classify_error(self, error: Exception) -> ClientFailure | None:
        """Return the meaning of an exception; see `qwen3vl_chroma.failures.classify_error`."""
        if isinstance(error, NotFoundError):
            # The collection was deleted, and perhaps created anew under another id.
            self._chroma_collection = None
        if self.is_async and type(error) is TimeoutError:
            settings = self.client.get_settings()
            server = f"{settings.chroma_server_host}:{settings.chroma_server_http_port}"
            return timeout_failure(server, self.timeout_s, TIMEOUT_SETTING)
        return failures.classify_error(error, is_embedded=self._is_embedded)

    async def _existing_collection(self) -> Any:
        """Return Chroma's `Collection` object, read once; raise `StoreError` if the collection does not exist."""
        collection = self._chroma_collection
        if collection is None:
            info = await self.find_collection()
            if info is None:
                raise self.missing_error()
            collection = info.description
        return collection

    async def _get_ids(self, ids: Sequence[str], *include: str, where: Any) -> list[Any]:
        """Read points by their ids in requests of bounded size."""
        return [await self._get(ids=part, where=where, include=list(include)) for part in _split(ids)]

    async def _get(self, **arguments: Any) -> Any:
        return await self.request((await self._existing_collection()).get, **arguments)


def _split(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + _MAX_REQUEST_IDS]) for start in range(0, len(ids), _MAX_REQUEST_IDS)]

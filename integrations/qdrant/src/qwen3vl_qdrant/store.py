"""One Qdrant collection as a `Store`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import httpx
import numpy as np
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse
from qdrant_client.local.async_qdrant_local import AsyncQdrantLocal
from qdrant_client.local.qdrant_local import QdrantLocal

from qwen3vl.documents import Document
from qwen3vl.errors import RecipeError, StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Hit, Point, PointRef, Search, Store, Vector, matches_nothing
from qwen3vl.stores.payloads.llama_index import llama_index_payload
from qwen3vl.stores.retry import ClientFailure, Retry, answered, out_of_disk
from qwen3vl_qdrant.filters import TENANT, metadata_key, to_filter
from qwen3vl_qdrant.layout import Layout

RECIPE = "qwen3vl_recipe"
"""The key of the collection's metadata under which the recipe is kept."""
REQUEST_BYTES = 8 * 2**20
"""A write's size, about: a quarter of what a server takes."""
REQUEST_POINTS = 1024
FLOAT_BYTES = 22
"""A float32 in JSON, at most."""
_PAGE = 1000
_INDEXES = {
    "metadata.source": models.PayloadSchemaType.KEYWORD,
    "metadata.kind": models.PayloadSchemaType.KEYWORD,
    TENANT: models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
}


_turns: WeakKeyDictionary[Any, RLock] = WeakKeyDictionary()


class QdrantStore(Store):
    """A collection of a Qdrant client: on a server or in the cloud, embedded in a folder, or in memory.

    client: a `QdrantClient`, or an `AsyncQdrantClient` for the methods that begin with `a`.
    layout: what is kept beside the full vectors; None takes that of an existing collection.
    tenant: whose points these are: others are neither found nor counted, scanned or deleted through this object.
    """

    def __init__(
        self,
        client: QdrantClient | AsyncQdrantClient,
        collection: str = "qwen3vl",
        *,
        layout: Layout | None = None,
        tenant: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(collection, tenant, retry)
        self.client: Any = client
        self.layout = layout
        self.awaited = isinstance(client, AsyncQdrantClient)
        self.embedded = isinstance(getattr(client, "_client", None), (QdrantLocal, AsyncQdrantLocal))
        if self.embedded:
            # The embedded engine is not made for threads: all stores of one client take turns.
            self._one_at_a_time = _turns.setdefault(getattr(client, "_client", client), RLock())

    @property
    def name(self) -> str:
        return f"the Qdrant collection {self.collection!r}"

    async def _recipe(self) -> Recipe | None:
        if not await self._ask(self.client.collection_exists, self.collection):
            return None
        info = await self._ask(self.client.get_collection, self.collection)
        metadata = info.config.metadata or {}
        if RECIPE not in metadata:
            raise StoreError(
                f"{self.name} was not made by qwen3vl: it has no recipe. Name another one. "
                "(If it was made just now, the server is older than 1.16 and keeps no metadata: bring it up to date.)"
            )
        recipe = Recipe.from_dict(metadata[RECIPE])
        self._check_layout(info.config, recipe)
        return recipe

    def _check_layout(self, config: models.CollectionConfig, recipe: Recipe) -> None:
        """Holds a collection against its recipe, and this object's layout against the collection's."""
        size, distance, layout = Layout.of(config.params, config)
        for field, have, want in (("size", size, recipe.dimensions), ("distance", distance, "Cosine")):
            if have != want:
                raise RecipeError(f"{self.name}: the vectors' {field} is {have}, and its recipe says {want}")
        wanted = self.layout
        # An embedded Qdrant has no index and does not keep what it ignores.
        for field in ("short",) if self.embedded else ("short", "quantization", "tenants"):
            if wanted is not None and getattr(wanted, field) != getattr(layout, field):
                raise RecipeError(
                    f"{self.name}: its layout's {field} is {getattr(layout, field)!r}, and {getattr(wanted, field)!r} "
                    "is asked for. Leave the layout out to take the collection's, or use another collection"
                )
        if wanted is None:
            self.layout = layout

    async def _create(self, recipe: Recipe) -> None:
        if await self._recipe() is None:
            made = (self.layout or Layout(tenants=self.tenant is not None)).create(recipe.dimensions)
            try:
                await self._ask(
                    self.client.create_collection, self.collection, metadata={RECIPE: recipe.to_dict()}, **made
                )
            except StoreError:
                # Another process may have made it at the same time.
                if not await self._ask(self.client.collection_exists, self.collection):
                    raise
        stored = await self._recipe()
        if stored is None:
            raise StoreError(f"{self.name} cannot be made")
        recipe.check(stored, self.name)
        if not self.embedded:
            await self._index()

    async def _index(self) -> None:
        """Makes the payload indexes that are not there yet: a run that made the collection may have been killed."""
        info = await self._ask(self.client.get_collection, self.collection)
        for key, schema in _INDEXES.items():
            if key not in (info.payload_schema or {}):
                await self._ask(self.client.create_payload_index, self.collection, key, schema, wait=True)

    async def _laid_out(self) -> Layout:
        """The collection's layout, asked for where nobody has yet."""
        if self.layout is None:
            await self._recipe()
        return self.layout or Layout()

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        return {str(record.id) for record in await self._retrieve(ids, vectors=False)}

    async def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        found = {str(record.id): record.vector for record in await self._retrieve(ids, vectors=True)}
        return {
            each: np.asarray(vector[""] if isinstance(vector, dict) else vector, dtype=np.float32)
            for each, vector in found.items()
        }

    async def _retrieve(self, ids: Sequence[str], *, vectors: bool) -> list[models.Record]:
        """The tenant's own points among these."""
        found = await self._ask(
            self.client.retrieve,
            self.collection,
            list(ids),
            with_payload=False if self.tenant is None else [TENANT],
            with_vectors=[""] if vectors else False,
        )
        return [each for each in found if self.tenant is None or (each.payload or {}).get(TENANT) == self.tenant]

    async def _upsert(self, points: Sequence[Point]) -> None:
        for batch in self._batches(points, await self._laid_out()):
            await self._ask(self.client.upsert, self.collection, batch, wait=True)

    def _batches(self, points: Sequence[Point], layout: Layout) -> Iterator[list[models.PointStruct]]:
        """Requests that stay well below what a server takes."""
        batch: list[models.PointStruct] = []
        size = 0
        for point in points:
            payload = self.payload(point)
            cost = FLOAT_BYTES * (len(point.vector) + (layout.short or 0)) + len(json.dumps(payload))
            if batch and (size + cost > REQUEST_BYTES or len(batch) == REQUEST_POINTS):
                yield batch
                batch, size = [], 0
            batch.append(models.PointStruct(id=point.id, vector=layout.vectors(point.vector), payload=payload))
            size += cost
        if batch:
            yield batch

    def payload(self, point: Point) -> dict[str, Any]:
        """What is stored beside a vector: LangChain's keys, LlamaIndex's, and the tenant."""
        payload = {**point.document.to_payload(), **llama_index_payload(point.document, point.id, "doc_id")}
        if self.tenant is not None:
            payload[TENANT] = self.tenant
        return payload

    async def _delete(self, ids: Sequence[str]) -> None:
        selector: Any = models.PointIdsList(points=list(ids))
        if self.tenant is not None:
            named = models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
            selector = models.FilterSelector(filter=to_filter(named, self.tenant) or named)
        await self._ask(self.client.delete, self.collection, selector, wait=True)

    async def _delete_where(self, where: Any) -> None:
        wanted = to_filter(where, self.tenant)
        if wanted is None or to_filter(where) is None:
            raise ValueError("delete_where needs a filter: to remove everything, delete the collection itself")
        if not matches_nothing(where):
            await self._ask(self.client.delete, self.collection, models.FilterSelector(filter=wanted), wait=True)

    async def _page(self, offset: Any) -> tuple[list[PointRef], Any]:
        records, after = await self._ask(
            self.client.scroll,
            self.collection,
            scroll_filter=to_filter(None, self.tenant),
            limit=_PAGE,
            offset=offset,
            with_payload=["metadata.source", "metadata.locator", "metadata.place"],
            with_vectors=False,
        )
        found = [((record.payload or {}).get("metadata", {}), str(record.id)) for record in records]
        return [
            PointRef(each, told.get("source", ""), told.get("locator") or told.get("place", "")) for told, each in found
        ], after

    async def _search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        layout = await self._laid_out()
        if any(search.one_per or matches_nothing(search.where) for search in searches):
            return [await self._grouped(search, layout) for search in searches]
        if self.embedded:
            # It searches exactly, and warns of what it does not need.
            layout = replace(layout, quantization=None)
        requests = [
            models.QueryRequest(
                **layout.query(search, to_filter(search.where, self.tenant)),
                offset=search.offset,
                with_payload=True,
            )
            for search in searches
        ]
        found = await self._ask(self.client.query_batch_points, self.collection, requests)
        return [[_hit(point) for point in response.points] for response in found]

    async def _grouped(self, search: Search, layout: Layout) -> list[Hit]:
        """The best hit of each value of a key.  Groups have no pages: those before the offset are passed over."""
        if matches_nothing(search.where):
            return []
        if search.one_per is None:
            return (await self._search([search]))[0]
        asked = layout.query(search, to_filter(search.where, self.tenant))
        wanted = asked.pop("filter")
        params = asked.pop("params", None)
        asked["limit"] = search.limit + search.offset
        found = await self._ask(
            self.client.query_points_groups,
            self.collection,
            group_by=metadata_key(search.one_per),
            group_size=1,
            query_filter=wanted,
            search_params=params,
            **asked,
        )
        return [_hit(group.hits[0]) for group in found.groups][search.offset :]

    async def _count(self) -> int:
        if not await self._ask(self.client.collection_exists, self.collection):
            return 0
        found = await self._ask(
            self.client.count, self.collection, count_filter=to_filter(None, self.tenant), exact=True
        )
        return int(found.count)

    async def _close(self) -> None:
        await self._ask(self.client.close)

    def _classify_error(self, error: Exception) -> ClientFailure | None:
        if isinstance(error, UnexpectedResponse):
            return _answered(error)
        if isinstance(error, ResourceExhaustedResponse):
            return ClientFailure(
                f"the server has too much to do: {error}", transient=True, wait=float(error.retry_after_s)
            )
        if isinstance(error, ResponseHandlingException):
            return _unanswered(error.source)
        if hasattr(error, "code") and hasattr(error, "details"):
            return _remote(error)
        if isinstance(error, json.JSONDecodeError):
            return ClientFailure(f"the server's answer was cut: {error}", transient=True)
        if isinstance(error, QdrantException) and "Retry-After" in str(error):
            return ClientFailure("the server has too much to do", transient=True)
        if isinstance(error, (sqlite3.Error, OSError)):
            return ClientFailure(str(error) or type(error).__name__)
        if isinstance(error, (ApiException, QdrantException, ValueError, RuntimeError)):
            return ClientFailure(str(error) or type(error).__name__, invalid_request=isinstance(error, ValueError))
        return None


def _answered(error: UnexpectedResponse) -> ClientFailure:
    """What an HTTP status means."""
    status = error.status_code or 0
    try:
        reason = str(error.structured()["status"]["error"])
    except (ValueError, KeyError, TypeError):
        reason = error.reason_phrase or "no reason given"
    wait = error.headers.get("Retry-After", "0") if error.headers else "0"
    fix = "give the client the api_key of one who may write, or unlock the collection"
    return answered("the server", status, reason, fix, float(wait) if wait.isdecimal() else 0.0)


def _unanswered(source: Exception) -> ClientFailure:
    """What a request without a proper answer means: most pass, a wrong address or certificate does not."""
    if isinstance(source, (httpx.UnsupportedProtocol, httpx.InvalidURL)) or "CERTIFICATE" in str(source).upper():
        return ClientFailure(f"the server's address or certificate is wrong: {source!r}")
    if isinstance(source, httpx.HTTPError):
        return ClientFailure(f"the server cannot be reached, or its answer was cut: {source!r}", transient=True)
    return ClientFailure(f"the server's answer is not understood; is it of another version? {source!r}")


def _remote(error: Any) -> ClientFailure:
    """What a gRPC status means."""
    code, reason = getattr(error.code(), "name", str(error.code())), str(error.details())
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return ClientFailure(f"the server refuses the credentials ({code}: {reason}); give the client its api_key")
    busy = code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "INTERNAL", "UNKNOWN")
    transient = busy and not out_of_disk(reason)
    return ClientFailure(
        f"the server answers {code}: {reason}", transient=transient, invalid_request=code == "INVALID_ARGUMENT"
    )


def _hit(point: Any) -> Hit:
    return Hit(str(point.id), Document.from_payload(point.payload or {}), float(point.score))


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

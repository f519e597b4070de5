"""One Chroma collection as a `Store`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import chromadb
import httpx
import numpy as np
from chromadb.api import AsyncBaseAPI
from chromadb.errors import ChromaError, NotFoundError

from qwen3vl.documents import Document
from qwen3vl.errors import RecipeError, StoreError
from qwen3vl.recipe import Recipe
from qwen3vl.stores import Hit, Point, PointRef, Search, Store, Vector, matches_nothing
from qwen3vl.stores.payloads.llama_index import llama_index_payload
from qwen3vl.stores.retry import ClientFailure, Retry, answered
from qwen3vl_chroma.filters import TENANT, to_where
from qwen3vl_chroma.functions import Qwen3VLEmbeddingFunction

RECIPE = "qwen3vl_recipe"
"""The key of the collection's metadata under which the recipe is kept, as JSON: Chroma's metadata are flat."""
REQUEST_BYTES = 8 * 2**20
"""A write's size, about."""
FLOAT_BYTES = 22
"""A float32 in JSON, at most."""
_PAGE = 1000
TIMEOUT = 60.0
"""Seconds for an answer of a server, where a blocking client would wait for ever, as Chroma's do by themselves."""


class ChromaStore(Store):
    """A collection of a Chroma client: in memory, in a folder, or on a server.

    client: an `EphemeralClient`, `PersistentClient` or `HttpClient`; or an `AsyncHttpClient` (awaited) for the
    methods that begin with `a`.
    tenant: whose points these are: others are neither found nor counted, scanned or deleted through this object.
    """

    def __init__(
        self,
        client: Any,
        collection: str = "qwen3vl",
        *,
        tenant: str | None = None,
        retry: Retry | None = None,
    ) -> None:
        super().__init__(collection, tenant, retry)
        self.client = client
        self.awaited = isinstance(client, AsyncBaseAPI)
        session = getattr(getattr(client, "_server", None), "_session", None)
        if isinstance(session, httpx.Client) and session.timeout == httpx.Timeout(None):
            session.timeout = httpx.Timeout(TIMEOUT)
        self._opened: Any = None
        self._largest = 0

    @property
    def name(self) -> str:
        return f"the Chroma collection {self.collection!r}"

    async def _find(self) -> Any:
        """The collection, or None while there is none."""
        if self._opened is None:
            try:
                self._opened = await self._ask(self.client.get_collection, self.collection, embedding_function=None)
            except StoreError as error:
                if isinstance(error.__cause__, NotFoundError):
                    return None
                raise
        return self._opened

    async def _open(self) -> Any:
        found = await self._find()
        if found is None:
            raise StoreError(f"{self.name} does not exist: nothing was ingested into it yet")
        return found

    async def _recipe(self) -> Recipe | None:
        found = await self._find()
        if found is None:
            return None
        metadata = found.metadata or {}
        if RECIPE not in metadata:
            raise StoreError(f"{self.name} was not made by qwen3vl: it has no recipe. Name another one")
        space = _space(found)
        if space != "cosine":
            raise RecipeError(f"{self.name}: its space is {space!r}, and qwen3vl's vectors need 'cosine'")
        return Recipe.from_dict(json.loads(metadata[RECIPE]))

    async def _create(self, recipe: Recipe) -> None:
        self._opened = None
        if await self._recipe() is None:
            # Two processes may do this at once: both then read what one of them wrote.
            await self._ask(
                self.client.get_or_create_collection,
                self.collection,
                configuration={"hnsw": {"space": "cosine"}},
                metadata={RECIPE: json.dumps(recipe.to_dict())},
                # Kept by name and settings, so that plain Chroma can search the collection by words.
                embedding_function=Qwen3VLEmbeddingFunction.of(recipe),
            )
        stored = await self._recipe()
        if stored is not None:
            recipe.check(stored, self.name)

    async def _existing(self, ids: Sequence[str]) -> set[str]:
        found = await self._ask((await self._open()).get, ids=list(ids), where=to_where(None, self.tenant), include=[])
        return set(found["ids"])

    async def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        found = await self._ask(
            (await self._open()).get, ids=list(ids), where=to_where(None, self.tenant), include=["embeddings"]
        )
        rows = np.asarray(found["embeddings"], dtype=np.float32)
        return dict(zip(found["ids"], rows, strict=True))

    async def _upsert(self, points: Sequence[Point]) -> None:
        opened = await self._open()
        if not self._largest:
            largest = int(await self._ask(self.client.get_max_batch_size))
            self._largest = largest if largest > 0 else 1000
        for batch in self._batches(points):
            await self._ask(
                opened.upsert,
                ids=[point.id for point in batch],
                embeddings=[point.vector for point in batch],
                documents=[point.document.text for point in batch],
                metadatas=[self.metadata(point) for point in batch],
                uris=[point.document.image or point.document.video for point in batch],
            )

    def _batches(self, points: Sequence[Point]) -> Iterator[Sequence[Point]]:
        """Requests within the client's own limit and well below what a server takes."""
        if not points:
            return
        cost = max(FLOAT_BYTES * len(point.vector) + 4 * len(point.document.text) + 2000 for point in points)
        most = max(1, min(self._largest, REQUEST_BYTES // cost))
        for start in range(0, len(points), most):
            yield points[start : start + most]

    def metadata(self, point: Point) -> dict[str, Any]:
        """Flat metadata for filters, and the whole of them in `_node_content`."""
        metadata = {
            **flat(point.document.to_payload()["metadata"]),
            **llama_index_payload(point.document, point.id, "document_id"),
        }
        return metadata if self.tenant is None else {**metadata, TENANT: self.tenant}

    async def _delete(self, ids: Sequence[str]) -> None:
        await self._ask((await self._open()).delete, ids=list(ids), where=to_where(None, self.tenant))

    async def _delete_where(self, where: Any) -> None:
        wanted = to_where(where, self.tenant)
        if wanted is None or to_where(where) is None:
            raise ValueError("delete_where needs a filter: to remove everything, delete the collection itself")
        if not matches_nothing(where):
            await self._ask((await self._open()).delete, where=wanted)

    async def _page(self, offset: Any) -> tuple[list[PointRef], Any]:
        start = offset or 0
        found = await self._ask(
            (await self._open()).get,
            where=to_where(None, self.tenant),
            limit=_PAGE,
            offset=start,
            include=["metadatas"],
        )
        page = [
            PointRef(each, str(told.get("source", "")), str(told.get("locator") or told.get("place", "")))
            for each, told in zip(found["ids"], found["metadatas"], strict=True)
        ]
        return page, start + _PAGE if len(page) == _PAGE else None

    async def _search(self, searches: Sequence[Search]) -> list[list[Hit]]:
        opened = await self._open()
        return [await self._found(opened, search) for search in searches]

    async def _found(self, opened: Any, search: Search) -> list[Hit]:
        """Chroma knows no pages, thresholds or groups: more hits are asked for, until there are enough of them."""
        if matches_nothing(search.where):
            return []
        needed = search.limit + search.offset
        asked = needed
        while True:
            found = await self._ask(
                opened.query,
                query_embeddings=[search.vector],
                n_results=asked,
                where=to_where(search.where, self.tenant),
                include=["metadatas", "documents", "distances"],
            )
            hits = _hits(found)
            best = _one_per(hits, search.one_per) if search.one_per else hits
            if len(best) >= needed or len(hits) < asked:
                break
            asked *= 4
        page = best[search.offset : needed]
        return page if search.threshold is None else [hit for hit in page if hit.score >= search.threshold]

    async def _count(self) -> int:
        opened = await self._find()
        if opened is None:
            return 0
        if self.tenant is None:
            return int(await self._ask(opened.count))
        found = await self._ask(opened.get, where=to_where(None, self.tenant), include=[])
        return len(found["ids"])

    async def _close(self) -> None:
        close = getattr(self.client, "close", None)
        if close is not None:
            await self._ask(close)

    def _classify_error(self, error: Exception) -> ClientFailure | None:
        if isinstance(error, (httpx.UnsupportedProtocol, httpx.InvalidURL)) or "CERTIFICATE" in str(error).upper():
            return ClientFailure(f"the server's address or certificate is wrong: {error!r}")
        if isinstance(error, httpx.HTTPStatusError):
            return _answered(error.response.status_code, str(error))
        if isinstance(error, httpx.RequestError):
            return ClientFailure(f"the server cannot be reached, or its answer was cut: {error!r}", transient=True)
        if isinstance(error, NotFoundError):
            self._opened = None
        if isinstance(error, ChromaError):
            return _answered(error.code(), error.message())
        if isinstance(error.__context__, httpx.HTTPStatusError):
            return _answered(error.__context__.response.status_code, str(error))
        if isinstance(error, json.JSONDecodeError):
            return ClientFailure(f"the server's answer was cut: {error}", transient=True)
        if isinstance(error, (OSError, ValueError, TypeError, RuntimeError)):
            told = str(error) or type(error).__name__
            return ClientFailure(told, invalid_request=isinstance(error, (ValueError, TypeError)))
        return None


def _answered(status: int, reason: str) -> ClientFailure:
    return answered("Chroma", status, reason, "give the client its headers")


def _space(collection: Any) -> str:
    stored = collection.configuration_json or {}
    return str((stored.get("hnsw") or stored.get("spann") or {}).get("space", "l2"))


def flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as Chroma takes them: scalars and lists of one type as they are, anything else as JSON."""
    return {key: value if _plain(value) else json.dumps(value) for key, value in metadata.items() if value is not None}


def _plain(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and len({type(each) for each in value}) == 1 and isinstance(value[0], (str, int, float))
    return isinstance(value, (str, int, float))


def _hits(found: Mapping[str, Any]) -> list[Hit]:
    rows = zip(*(found[key][0] for key in ("ids", "documents", "metadatas", "distances")), strict=True)
    return [
        Hit(each, _document(text, metadata or {}), 1.0 - float(distance)) for each, text, metadata, distance in rows
    ]


def _document(text: str | None, metadata: Mapping[str, Any]) -> Document:
    """The document as it was, also where its metadata were not flat."""
    whole = json.loads(metadata["_node_content"])["metadata"] if "_node_content" in metadata else dict(metadata)
    return Document.from_payload({"page_content": text or "", "metadata": whole})


def _one_per(hits: Sequence[Hit], key: str) -> list[Hit]:
    """The best hit of each value, as Qdrant groups: hits without one are left out, each value of a list is one."""
    best: dict[Any, Hit] = {}
    for hit in hits:
        value = hit.document.to_payload()["metadata"].get(key)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, (str, int)):
                best.setdefault(each, hit)
    return list({hit.id: hit for hit in best.values()}.values())


def open_store(place: str, collection: str = "qwen3vl") -> ChromaStore:
    """A store in a folder (made if need be), behind an http(s) URL, or ":memory:"."""
    try:
        if place.startswith(("http://", "https://")):
            url = urlsplit(place)
            secure = url.scheme == "https"
            client = chromadb.HttpClient(url.hostname or "", url.port or (443 if secure else 80), ssl=secure)
        elif place == ":memory:":
            client = chromadb.EphemeralClient()
        else:
            client = chromadb.PersistentClient(place)
        return ChromaStore(client, collection)
    except Exception as error:  # connections, versions, permissions: the client raises many kinds
        raise StoreError(f"the store {place} cannot be opened: {error}") from error

"""`Library`: the store that a server searches, with what it needs to show hits and to ingest documents."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.documents import Document
from qwen3vl.errors import InputError, PolicyError
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.retriever import AsyncRetriever
from qwen3vl.stores import AsyncStore
from qwen3vl_server.byte_cache import ByteCache
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.failures import store_failures
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.media_owner import MediaOwner
from qwen3vl_server.library.points import SourceCounts
from qwen3vl_server.library.rendering import Shown, as_shown_video, open_video, render_thumbnail
from qwen3vl_server.library.signing import MediaSigner
from qwen3vl_server.quotas import Quota
from qwen3vl_server.service import ModelService
from qwen3vl_server.settings import ServerSettings

if TYPE_CHECKING:  # they import torch
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

T = TypeVar("T")
log = logging.getLogger(__name__)

_THUMBNAIL_CACHE_BYTES = 64 * 2**20
_VIDEO_CACHE_BYTES = 64 * 2**20
_POINT_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MAX_UPLOADS = 16
"""Uploads that may arrive at a time."""


class Library:
    """A store, the models that search it, and the folder of uploads. It belongs to one event loop.

    Args:
        service: The models. The embedding model's media policy decides which media of hits are shown.
        store: The store, which is not closed here.
        media: Folder of uploads, which may be open already; None refuses them.
        settings: Keys and limits.

    Attributes:
        store: The store.
        service: The models.
        settings: Keys and limits.
        embedder: The embedding model.
        reranker: The reranker; None if there is none.
        by_vectors: Searches the store.
        reranking: Searches the store and reranks the hits; None without a reranker.
        signer: Signs the URLs of media.
        sources: Counts the points of each source.
        ingestion: Ingests uploads; None if they are refused.
        uploads: Counts the uploads that are arriving.
        has_words: Whether the store can be searched by words; known once the library is open.

    Raises:
        ValueError: There is no embedding model, or the media policy does not allow the folder of uploads.
        StoreError: Another server uses that folder, it belongs to another collection, or it cannot be locked.
        OSError: It cannot be created.
    """

    def __init__(
        self,
        service: ModelService,
        store: AsyncStore,
        media: Path | MediaFolder | None,
        settings: ServerSettings,
    ) -> None:
        if "embedder" not in service.models:
            raise ValueError("a store is searched with an embedding model; pass embedder")
        self.service = service
        self.store = store
        self.settings = settings
        self.embedder = cast("Embedder", service.models["embedder"].model)
        served = service.models.get("reranker")
        self.reranker = None if served is None else cast("Reranker", served.model)
        self.signer = MediaSigner(settings.api_keys)
        self.sources = SourceCounts(store)
        self.uploads = Quota(_MAX_UPLOADS, "uploads")
        self.by_vectors = AsyncRetriever(self.embedder, store)
        self.reranking = None if self.reranker is None else AsyncRetriever(self.embedder, store, self.reranker)
        self.has_words = False
        self.ingestion: Ingestion | None = None
        if media is not None:
            _check_policy(self.policy, media if isinstance(media, Path) else media.path)
            folder = media
            if isinstance(folder, Path):
                folder = MediaFolder(folder, MediaOwner(store.core.collection, store.core.database))
            self.ingestion = Ingestion(self.embedder, store, folder, self.sources)
        self._thumbnails = ByteCache(_THUMBNAIL_CACHE_BYTES)
        self._fetched_videos = ByteCache(max(_VIDEO_CACHE_BYTES, self.policy.max_bytes))
        self._opening = asyncio.Lock()
        self._is_open = False
        self._unfinished: set[asyncio.Task[Any]] = set()

    @property
    def policy(self) -> MediaPolicy:
        """What the references of stored documents may reach."""
        return self.embedder.policy

    async def open(self) -> None:
        """Create or check the collection and begin to ingest, if that was not done yet.

        Raises:
            RecipeError: The collection was made with another model or settings.
            StoreError: The store cannot be read.
        """
        async with self._opening:
            if self._is_open:
                return
            stored = await self.store.arecipe()
            if stored is None:
                await self.store.acreate(self.embedder.recipe)
            else:
                self.embedder.recipe.check(stored, self.store.name)
            self.has_words = await self.store.ahas_words()
            if self.ingestion is not None:
                self.ingestion.start()
            self._is_open = True

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        """Return a context for the lifetime of the application."""
        await self.open()
        try:
            yield
        finally:
            await asyncio.gather(*self._unfinished, return_exceptions=True)
            if self.ingestion is not None:
                await self.ingestion.close()
                self.ingestion.folder.close()

    async def finish(self, change: Coroutine[Any, Any, T]) -> T:
        """Await a change of points and files, which is made to its end although the client of the request leaves.

        Args:
            change: The change; half of it would leave files behind of which nobody knows.

        Returns:
            Its result.
        """
        task = asyncio.create_task(change)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)  # nobody else gets its error
            raise

    async def document(self, point_id: str) -> Document:
        """Return a stored document.

        Args:
            point_id: The id of its point.

        Returns:
            The document.

        Raises:
            RequestError: There is none: status 404.
        """
        with store_failures():
            documents = await self.store.adocuments([point_id]) if is_point_id(point_id) else {}
        if point_id not in documents:
            raise RequestError(404, f"the store has no point {point_id!r}", code="not_found")
        return documents[point_id]

    async def thumbnail(self, point_id: str) -> Shown:
        """Return the thumbnail of a point's document.

        Args:
            point_id: The id of the point.

        Returns:
            A JPEG.

        Raises:
            RequestError: There is no such point, it has no media, or they are not allowed or cannot be read.
        """
        document = await self.document(point_id)
        cached = self._thumbnails.get(point_id)
        if cached is not None:
            return Shown(cached, "image/jpeg")
        shown = await self.show(document, render_thumbnail)
        assert isinstance(shown.content, bytes)  # noqa: S101 (it was made here)
        self._thumbnails.put(point_id, shown.content)
        return shown

    async def video(self, point_id: str, *, is_beginning: bool) -> Shown:
        """Return the video of a point's document.

        Args:
            point_id: The id of the point.
            is_beginning: Whether its beginning is asked for. A video from a URL is then fetched; the parts that follow
                are of what was fetched.

        Returns:
            The whole video.

        Raises:
            RequestError: There is no such point, it has no video, or it is not allowed or cannot be read.
        """
        document = await self.document(point_id)
        url = (document.video or "").partition("#")[0]
        cached = None if is_beginning else self._fetched_videos.get(url)
        if cached is not None:
            return as_shown_video(cached)
        shown = await self.show(document, open_video)
        if isinstance(shown.content, bytes) and url[:4].lower() == "http":  # else it is in a data URI
            self._fetched_videos.put(url, shown.content)
        return shown

    async def show(self, document: Document, render: Callable[[Document, MediaPolicy], Shown]) -> Shown:
        """Open or decode the media of a document in a thread. At most four are decoded at once.

        Args:
            document: A stored document.
            render: A function of `qwen3vl_server.library.rendering`.

        Returns:
            What it returns.

        Raises:
            RequestError: The policy does not allow the media (403), or they cannot be read (404).
        """
        try:
            return await run_in_executor(render, document, self.policy)  # its pool has four threads
        except PolicyError as error:
            raise RequestError(403, f"the media of this point are not shown: {error}") from error
        except InputError as error:
            raise RequestError(404, f"the media of this point cannot be shown: {error}") from error


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("what a client asked for that has left failed: %s", error, exc_info=error)


def is_point_id(text: str) -> bool:
    """Return whether a text is the id of a point: a UUID in its usual form.

    Args:
        text: Any text.

    Returns:
        False for other forms of UUIDs, which some databases accept too.
    """
    return _POINT_ID.fullmatch(text) is not None


def _check_policy(policy: MediaPolicy, folder: Path) -> None:
    try:
        policy.check_path(str(folder))
    except InputError as error:
        raise ValueError(
            f"the media policy of the models does not allow the folder of uploads, {folder}: load them with "
            "policy=replace(SERVER_POLICY, folders=(that folder, …))"
        ) from error

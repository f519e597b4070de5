"""Adding documents with images and videos to LangChain's vector stores."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from langchain_core.vectorstores import VectorStore

from langchain_qwen3_vl.batches import AddProgress, AnyDocument, EmbeddedBatch, OnError, check_on_error
from langchain_qwen3_vl.embeddings import Qwen3VLEmbeddings
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import StoreError

BATCH_SIZE = 64
"""Default number of documents that are embedded and written at a time."""


def add_documents(
    store: VectorStore,
    documents: Iterable[AnyDocument],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """Embed documents by their text and media together, and add them to a vector store.

    A store's own `add_documents` embeds only `page_content`; this function embeds media in the metadata too. The store
    writes the documents as it always does.

    Args:
        store: Any `VectorStore` that was created with `Qwen3VLEmbeddings`, or with a `CacheBackedEmbeddings` around
            them, and passes texts unchanged to it, as QdrantVectorStore, Chroma, InMemoryVectorStore, FAISS and most
            others do. The cache is not used, because it knows documents only by their texts. A FAISS store does not
            replace documents; those that are written again are deleted from it first.
        documents: Any number of documents; `batch_size` of them are read, embedded and written at a time. A document
            without an id gets a UUID of its text and metadata, so that adding it again replaces it.
        embeddings: The store's embeddings, for stores whose `embeddings` property is None.
        batch_size: Number of documents in a batch.

    Returns:
        The ids of the documents, in their order.

    Raises:
        BatchError: Documents cannot be embedded. The others are written; `results` has their ids, with None for those
            that failed.
        StoreError: The store does not embed with `Qwen3VLEmbeddings`, or changes texts before it embeds them.
        RecipeError: The store's embeddings and `embeddings` make different vectors.
        ValueError: `batch_size` is less than 1.
        Exception: What the store raises, with a note of what was written before.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_qwen3_vl import Qwen3VLEmbeddings, add_documents
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (96, 96), "red").save("red.png")
        store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=(".",))))
        ids = add_documents(store, [Document("", metadata={"image": "red.png"}), Document("a blue star")])
        print(store.similarity_search("a blue star", k=1)[0].page_content)
        ```
    """
    return write_documents(
        store,
        documents,
        lambda target, batch: target.add_documents(batch.documents, ids=batch.ids),
        embeddings,
        batch_size=batch_size,
    )


async def aadd_documents(
    store: VectorStore,
    documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH_SIZE,
) -> list[str]:
    """Add documents as `add_documents` does, without blocking the event loop.

    Args:
        store: As for `add_documents`.
        documents: As for `add_documents`; asynchronous iterables are accepted too.
        embeddings: As for `add_documents`.
        batch_size: As for `add_documents`.

    Returns:
        The ids of the documents, in their order.

    Raises:
        BatchError: As for `add_documents`.
        StoreError: As for `add_documents`.
        RecipeError: As for `add_documents`.
        ValueError: As for `add_documents`.
        Exception: As for `add_documents`.
    """
    return await awrite_documents(
        store,
        documents,
        lambda target, batch: target.aadd_documents(batch.documents, ids=batch.ids),
        embeddings,
        batch_size=batch_size,
    )


def write_documents(
    store: VectorStore,
    documents: Iterable[AnyDocument],
    write: Callable[[Any, EmbeddedBatch], object],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    on_error: OnError = "raise",
) -> list[str]:
    """Embed documents in batches, and pass each batch to a function that writes it.

    Args:
        store: The vector store.
        documents: As for `add_documents`.
        write: Writes a batch to the store that is its first argument: `store`, or a shallow copy of it.
        embeddings: As for `add_documents`.
        batch_size: As for `add_documents`.
        on_error: What to do with documents that cannot be embedded.

    Returns:
        The ids of the documents that are written, in their order.

    Raises:
        BatchError: As for `add_documents`, if `on_error` is `"raise"`.
        StoreError: As for `add_documents`.
        RecipeError: As for `add_documents`.
        ValueError: As for `add_documents`.
        Exception: As for `add_documents`.
    """
    _check_batch_size(batch_size)
    check_on_error(on_error)
    progress = AddProgress(_store_embeddings(store, embeddings))
    for batch in _batches(documents, batch_size):
        embedded = progress.embed(batch)
        with progress.notes_on_errors():
            if embedded.documents:
                if not _replaces(store):
                    _delete_older(store, embedded.ids)
                write(_write_target(store, progress.embeddings), embedded)
                embedded.check_taken(store)
    return progress.finish(on_error)


async def awrite_documents(
    store: VectorStore,
    documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument],
    write: Callable[[Any, EmbeddedBatch], Awaitable[object]],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    on_error: OnError = "raise",
) -> list[str]:
    """Write documents as `write_documents` does, without blocking the event loop.

    Args:
        store: As for `write_documents`.
        documents: As for `aadd_documents`.
        write: As for `write_documents`, a coroutine function.
        embeddings: As for `add_documents`.
        batch_size: As for `add_documents`.
        on_error: As for `write_documents`.

    Returns:
        As `write_documents` returns.

    Raises:
        BatchError: As for `write_documents`.
        StoreError: As for `add_documents`.
        RecipeError: As for `add_documents`.
        ValueError: As for `add_documents`.
        Exception: As for `add_documents`.
    """
    _check_batch_size(batch_size)
    check_on_error(on_error)
    progress = AddProgress(await run_in_executor(_store_embeddings, store, embeddings))
    async for batch in _abatches(documents, batch_size):
        embedded = await progress.aembed(batch)
        with progress.notes_on_errors():
            if embedded.documents:
                if not _replaces(store):
                    await asyncio.to_thread(_delete_older, store, embedded.ids)
                await write(_write_target(store, progress.embeddings), embedded)
                embedded.check_taken(store)
    return progress.finish(on_error)


def media_embeddings(embeddings: object) -> Qwen3VLEmbeddings | None:
    """Return the `Qwen3VLEmbeddings` that embeddings are, or that a `CacheBackedEmbeddings` wraps.

    Args:
        embeddings: Embeddings of a vector store.

    Returns:
        The embeddings; None if they are others.
    """
    underlying = getattr(embeddings, "underlying_embeddings", embeddings)
    return underlying if isinstance(underlying, Qwen3VLEmbeddings) else None


def require_dense(store_class: type[VectorStore], retrieval_mode: object) -> None:
    """Check that a vector store stores vectors of its embeddings, which one of Qdrant in sparse mode does not.

    Args:
        store_class: The class of the store.
        retrieval_mode: Its retrieval mode; None if it has none.

    Raises:
        StoreError: The store is in sparse mode.
    """
    if "sparse" in str(retrieval_mode).lower():
        raise StoreError(
            f"{store_class.__name__} is in sparse mode and stores no vectors of its embeddings, so nothing was added: "
            "create it with retrieval_mode=RetrievalMode.DENSE or HYBRID, and with Qwen3VLEmbeddings as embedding"
        )


def replace_embeddings(store: VectorStore, old: object, new: object) -> None:
    """Replace the embeddings that a vector store holds in one of its attributes.

    Args:
        store: The store; it is changed.
        old: Its embeddings.
        new: What it embeds with from now on.

    Raises:
        StoreError: None of the store's attributes holds the embeddings.
    """
    names = [name for name, value in vars(store).items() if value is old]
    if not names:
        raise StoreError(
            f"{type(store).__name__} holds its {type(old).__name__} where it cannot be found; create the store with "
            "Qwen3VLEmbeddings"
        )
    for name in names:
        setattr(store, name, new)


def _replaces(store: VectorStore) -> bool:
    """Return whether a store replaces documents that are written again, as LangChain requires of all.

    FAISS appends their vectors to its index, and then raises an error for their ids: from there on its hits belong to
    other documents.
    """
    return all(parent.__name__ != "FAISS" for parent in type(store).__mro__)


def _delete_older(store: VectorStore, ids: list[str]) -> None:
    """Delete the documents with these ids from a store that would not replace them."""
    # One by one, because documents of stores that older versions have saved have no id.
    if older := [document_id for document_id in ids if store.get_by_ids([document_id])]:
        store.delete(older)


def _write_target(store: VectorStore, embeddings: Qwen3VLEmbeddings) -> VectorStore:
    """Return the store, or a shallow copy of it that embeds without the cache around its embeddings.

    A `CacheBackedEmbeddings` knows vectors by texts: it would return the vector of an equal text for a document with
    an image, and keep the document's vector for the text. The copy writes to the same database. It is made for each
    batch, because a deletion may give the store other objects than those that an earlier copy holds.
    """
    cached = store.embeddings
    if cached is None or cached is embeddings:
        return store
    target = copy.copy(store)
    replace_embeddings(target, cached, embeddings)
    return target


def _store_embeddings(store: VectorStore, embeddings: Qwen3VLEmbeddings | None) -> Qwen3VLEmbeddings:
    """Return the embeddings of a store, after checking that they make the vectors that `embeddings` makes."""
    require_dense(type(store), getattr(store, "retrieval_mode", None))
    store_embeddings = media_embeddings(store.embeddings or embeddings)
    if store_embeddings is None:
        raise StoreError(
            f"{type(store).__name__} embeds with {type(store.embeddings).__name__}, which embeds only texts; create "
            "the store with Qwen3VLEmbeddings"
        )
    if embeddings is not None and embeddings is not store_embeddings:
        embeddings.embedder.recipe.check(store_embeddings.embedder.recipe, type(store).__name__)
    return store_embeddings


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")


def _batches(documents: Iterable[AnyDocument], size: int) -> Iterator[list[AnyDocument]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, size)):
        yield batch


async def _abatches(
    documents: Iterable[AnyDocument] | AsyncIterable[AnyDocument], size: int
) -> AsyncIterator[list[AnyDocument]]:
    if not isinstance(documents, AsyncIterable):
        batches = _batches(documents, size)
        # On asyncio's default threads, so that a slow iterable does not block this package's few executor threads,
        # which load models.
        while next_batch := await asyncio.to_thread(next, batches, None):
            yield next_batch
        return
    batch: list[AnyDocument] = []
    async for document in documents:
        batch.append(document)
        if len(batch) >= size:
            yield batch
            batch = []
    if batch:
        yield batch

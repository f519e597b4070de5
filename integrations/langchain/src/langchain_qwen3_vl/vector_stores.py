"""Adding documents with images and videos to LangChain's vector stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias
from uuid import NAMESPACE_OID, uuid5

from langchain_core.documents import Document as LangChainDocument
from langchain_core.vectorstores import VectorStore

from langchain_qwen3_vl.documents import to_langchain
from langchain_qwen3_vl.embeddings import Qwen3VLEmbeddings
from langchain_qwen3_vl.precomputed import PrecomputedText
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.documents import Document
from qwen3vl.errors import BatchError, ItemError, StoreError

BATCH_SIZE = 64
"""Default number of documents that are embedded and written at a time."""
_IDS_IN_MESSAGE = 5
_ERRORS_IN_MESSAGE = 5

AnyDocument: TypeAlias = LangChainDocument | Document


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
        store: Any `VectorStore` that was created with `Qwen3VLEmbeddings` and passes texts unchanged to it, as
            QdrantVectorStore, Chroma, InMemoryVectorStore and most others do.
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
    _check_batch_size(batch_size)
    progress = AddProgress(_store_embeddings(store, embeddings))
    for batch in _batches(documents, batch_size):
        embedded = progress.embed(batch)
        with progress.notes_on_errors():
            if embedded.documents:
                store.add_documents(embedded.documents, ids=embedded.ids)
                embedded.check_taken(store)
    return progress.ids_or_raise()


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
    _check_batch_size(batch_size)
    progress = AddProgress(await run_in_executor(_store_embeddings, store, embeddings))
    async for batch in _abatches(documents, batch_size):
        embedded = await run_in_executor(progress.embed, batch)
        with progress.notes_on_errors():
            if embedded.documents:
                await store.aadd_documents(embedded.documents, ids=embedded.ids)
                embedded.check_taken(store)
    return progress.ids_or_raise()


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedBatch:
    """Documents that are ready to be written.

    Attributes:
        documents: Documents whose `page_content` is a `PrecomputedText`.
        ids: Their ids.
    """

    documents: list[LangChainDocument]
    ids: list[str]

    def check_taken(self, store: VectorStore) -> None:
        """Check that the store asked for each vector.

        A store that changes texts before it embeds them has embedded plain texts instead.

        Args:
            store: The store that the documents were added to.

        Raises:
            StoreError: The store did not ask for some of the vectors.
        """
        not_taken = [document.id for document in self.documents if not getattr(document.page_content, "taken", False)]
        if not_taken:
            ids = ", ".join(str(document_id) for document_id in not_taken[:_IDS_IN_MESSAGE])
            more = ", …" if len(not_taken) > _IDS_IN_MESSAGE else ""
            raise StoreError(
                f"{type(store).__name__} did not pass {len(not_taken)} of {len(self.ids)} texts unchanged to its "
                f"embeddings. It stored vectors of these texts without their media, under the ids {ids}{more}; delete "
                "them, and use QdrantVectorStore, Chroma, InMemoryVectorStore or qwen3vl.ingest"
            )


class AddProgress:
    """The state of one `add_documents` call: which documents have been embedded, and which failed.

    Args:
        embeddings: The embeddings of the store.

    Attributes:
        embeddings: The embeddings of the store.
        ids: Ids of the documents so far, in their order, with None for failed ones.
        errors: The failures, with the document's index in the call.
    """

    def __init__(self, embeddings: Qwen3VLEmbeddings) -> None:
        self.embeddings = embeddings
        self.ids: list[str | None] = []
        self.errors: list[ItemError] = []

    def embed(self, batch: list[AnyDocument]) -> EmbeddedBatch:
        """Embed the next documents, and record their ids and failures.

        Args:
            batch: The documents that follow those embedded so far.

        Returns:
            The documents that could be embedded. Of several with the same id only the last one.
        """
        start = len(self.ids)
        documents = [to_langchain(document) if isinstance(document, Document) else document for document in batch]
        vectors = self.embeddings.collect(documents)
        embedded: dict[str, LangChainDocument] = {}
        for document, vector, ok in zip(documents, vectors.values, vectors.ok, strict=True):
            if not ok:
                self.ids.append(None)
                continue
            document_id = document.id or _content_id(document)
            self.ids.append(document_id)
            text = PrecomputedText(document.page_content, vector.tolist())
            # Without validation, because pydantic would convert the text to a plain str.
            embedded[document_id] = LangChainDocument.model_construct(
                id=document_id, page_content=text, metadata=document.metadata
            )
        self.errors += [error.at(start + error.index) for error in vectors.errors]
        return EmbeddedBatch(list(embedded.values()), list(embedded))

    @contextmanager
    def notes_on_errors(self) -> Iterator[None]:
        """Return a context manager that adds a note to exceptions: which documents were written before.

        Yields:
            Nothing.
        """
        try:
            yield
        except Exception as error:
            error.add_note(
                "add_documents: the documents before the batch that ends with item "
                f"{len(self.ids) - 1} have been written"
            )
            if self.errors:
                failures = "; ".join(str(item_error) for item_error in self.errors[:_ERRORS_IN_MESSAGE])
                error.add_note(f"except those that could not be embedded: {failures}")
            raise

    def ids_or_raise(self) -> list[str]:
        """Return the ids of all documents.

        Returns:
            The ids, in the order of the documents.

        Raises:
            BatchError: Documents could not be embedded.
        """
        if self.errors:
            raise BatchError(self.errors, self.ids)
        return [document_id for document_id in self.ids if document_id is not None]


def _content_id(document: LangChainDocument) -> str:
    """Return a UUID of text and metadata: equal texts of two owners, or of two pages, are different documents."""
    content = json.dumps([document.page_content, document.metadata], sort_keys=True, default=repr)
    return str(uuid5(NAMESPACE_OID, content))


def _store_embeddings(store: VectorStore, embeddings: Qwen3VLEmbeddings | None) -> Qwen3VLEmbeddings:
    """Return the embeddings of a store, after checking that they make the vectors that `embeddings` makes."""
    if "sparse" in str(getattr(store, "retrieval_mode", "")).lower():
        raise StoreError(
            f"{type(store).__name__} is in sparse mode and stores no vectors of its embeddings, so nothing was added: "
            "create it with retrieval_mode=RetrievalMode.DENSE or HYBRID, and with Qwen3VLEmbeddings as embedding"
        )
    store_embeddings = store.embeddings or embeddings
    if not isinstance(store_embeddings, Qwen3VLEmbeddings):
        raise StoreError(
            f"{type(store).__name__} embeds with {type(store_embeddings).__name__}, which embeds only texts; create "
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
        # which other calls need for the model.
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

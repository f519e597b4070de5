"""Documents with media into LangChain's own vector stores."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from uuid import NAMESPACE_OID, uuid5

from langchain_core.documents import Document as LangChainDocument
from langchain_core.vectorstores import VectorStore

from langchain_qwen3_vl.content import to_langchain
from langchain_qwen3_vl.embeddings import PrecomputedText, Qwen3VLEmbeddings
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.documents import Document
from qwen3vl.errors import BatchError, ItemError, StoreError

BATCH = 64
Given = LangChainDocument | Document


def add_documents(
    store: VectorStore,
    documents: Iterable[Given],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH,
) -> list[str]:
    """Stores documents under vectors of their text and media together; returns their ids, in their order.

    store: any `VectorStore` that has `Qwen3VLEmbeddings` and hands texts on to them as they are: QdrantVectorStore,
    Chroma, InMemoryVectorStore and most others.  Documents are written as the store writes them.
    documents: any number; taken, embedded and written `batch_size` at a time.
    embeddings: the store's own, for stores that do not tell them.

    A document without an id gets a UUID of its text and metadata, so that storing it again replaces it.

    Raises `BatchError` when all others are written, where documents cannot be embedded; its `results` are the ids,
    with None for those.  Raises `StoreError` where the store cannot keep these vectors.  What the store raises
    passes, with a note of what was written before.
    """
    written = AddProgress(_embeddings(store, embeddings))
    for batch in _batches(documents, batch_size):
        ready = written.prepare(batch)
        with written.noted():
            if ready.documents:
                store.add_documents(ready.documents, ids=ready.ids)
                ready.check(store)
    return written.settled()


async def aadd_documents(
    store: VectorStore,
    documents: Iterable[Given] | AsyncIterable[Given],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH,
) -> list[str]:
    """`add_documents` without blocking the event loop; takes asynchronous streams too."""
    written = AddProgress(await run_in_executor(_embeddings, store, embeddings))
    async for batch in _abatches(documents, batch_size):
        ready = await run_in_executor(written.prepare, batch)
        with written.noted():
            if ready.documents:
                await store.aadd_documents(ready.documents, ids=ready.ids)
                ready.check(store)
    return written.settled()


@dataclass(frozen=True, slots=True, eq=False)
class _Ready:
    """Documents whose page contents carry their vectors."""

    documents: list[LangChainDocument]
    ids: list[str]

    def check(self, store: VectorStore) -> None:
        """Whether the store asked for each vector; one that changes texts first embeds captions instead."""
        lost = [each for each in self.documents if not getattr(each.page_content, "taken", False)]
        if lost:
            raise StoreError(
                f"{type(store).__name__} did not hand {len(lost)} of {len(self.ids)} texts on to its embeddings as "
                f"they are: it stored vectors of the texts alone, under the ids {', '.join(self.ids[:5])}, … Use "
                "QdrantVectorStore, Chroma or InMemoryVectorStore, or qwen3vl.ingest"
            )


class AddProgress:
    """What became of all documents so far."""

    def __init__(self, embeddings: Qwen3VLEmbeddings) -> None:
        self.embeddings = embeddings
        self.ids: list[str | None] = []
        self.errors: list[ItemError] = []

    def prepare(self, batch: list[Given]) -> _Ready:
        """StreamingEmbedder a batch, and notes what fails."""
        start = len(self.ids)
        documents = [to_langchain(each) if isinstance(each, Document) else each for each in batch]
        found = self.embeddings.collect(documents)
        ready: dict[str, LangChainDocument] = {}
        for document, vector, good in zip(documents, found.values, found.ok, strict=True):
            own = (document.id or _id(document)) if good else None
            self.ids.append(own)
            if own is not None:
                text = PrecomputedText(document.page_content, vector.tolist())
                # Not validated: that would make a plain text of it.
                ready[own] = LangChainDocument.model_construct(id=own, page_content=text, metadata=document.metadata)
        self.errors += [error.at(start + error.index) for error in found.errors]
        return _Ready(list(ready.values()), list(ready))

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Adds to what a store raises what was written before it."""
        try:
            yield
        except Exception as error:
            error.add_note(
                f"add_documents: what comes before the batch that ends with item {len(self.ids) - 1} is written"
            )
            if self.errors:
                error.add_note(f"but for these: {'; '.join(map(str, self.errors[:5]))}")
            raise

    def settled(self) -> list[str]:
        if self.errors:
            raise BatchError(self.errors, self.ids)
        return [each for each in self.ids if each is not None]


def _id(document: LangChainDocument) -> str:
    """Documents that differ in a metadatum only are others: pages of one text, texts of two owners."""
    told = json.dumps([document.page_content, document.metadata], sort_keys=True, default=repr)
    return str(uuid5(NAMESPACE_OID, told))


def _embeddings(store: VectorStore, embeddings: Qwen3VLEmbeddings | None) -> Qwen3VLEmbeddings:
    own = store.embeddings or embeddings
    if not isinstance(own, Qwen3VLEmbeddings):
        raise StoreError(
            f"{type(store).__name__} embeds with {type(own).__name__}, which knows only texts: make the store with "
            "Qwen3VLEmbeddings"
        )
    if embeddings is not None and embeddings is not own:
        embeddings.embedder.recipe.check(own.embedder.recipe, type(store).__name__)
    return own


def _batches(documents: Iterable[Given], size: int) -> Iterator[list[Given]]:
    if size < 1:
        raise ValueError(f"batch_size is {size}; it is at least 1")
    stream = iter(documents)
    while batch := list(islice(stream, size)):
        yield batch


async def _abatches(documents: Iterable[Given] | AsyncIterable[Given], size: int) -> AsyncIterator[list[Given]]:
    if isinstance(documents, AsyncIterable):
        batch: list[Given] = []
        async for document in documents:
            batch.append(document)
            if len(batch) >= max(size, 1):
                yield batch
                batch = []
        if batch:
            yield batch
        return
    batches = _batches(documents, size)
    # In asyncio's own threads: a slow source is not to keep others from the model.
    while taken := await asyncio.to_thread(next, batches, None):
        yield taken

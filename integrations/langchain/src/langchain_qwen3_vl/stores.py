"""Documents with media into LangChain's own vector stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from langchain_core.documents import Document as LangChainDocument
from langchain_core.vectorstores import VectorStore

from langchain_qwen3_vl.content import as_inputs, from_langchain, to_langchain
from langchain_qwen3_vl.embeddings import Qwen3VLEmbeddings, Ready
from qwen3vl.background import in_background
from qwen3vl.documents import Document
from qwen3vl.errors import BatchError, ItemError, StoreError

BATCH = 64


def add_documents(
    store: VectorStore,
    documents: Iterable[LangChainDocument | Document],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH,
) -> list[str]:
    """Stores documents under vectors of their text and media together; returns their ids, in their order.

    store: any `VectorStore` that has `Qwen3VLEmbeddings` and hands texts on to them as they are: QdrantVectorStore,
    Chroma, InMemoryVectorStore and most others.  Documents are written as the store writes them.
    documents: any number; taken, embedded and written `batch_size` at a time.
    embeddings: where the store does not tell its own; of the same recipe.

    A document without an id gets a UUID that stays while its content does, so that storing it again replaces it.

    Raises `BatchError` when all others are written, where documents cannot be embedded; its `results` are the ids,
    with None for those.  Raises `StoreError` where the store cannot keep these vectors.
    """
    own = _embeddings(store, embeddings)
    written = _Written()
    for batch in _batches(documents, batch_size):
        ready = _prepare(own, batch, written)
        if ready.documents:
            store.add_documents(ready.documents, ids=ready.ids)
            ready.check(store)
    return written.settled()


async def aadd_documents(
    store: VectorStore,
    documents: Iterable[LangChainDocument | Document],
    embeddings: Qwen3VLEmbeddings | None = None,
    *,
    batch_size: int = BATCH,
) -> list[str]:
    """`add_documents` without blocking the event loop."""
    own = _embeddings(store, embeddings)
    written = _Written()
    batches = _batches(documents, batch_size)
    while batch := await in_background(next, batches, None):
        ready = await in_background(_prepare, own, batch, written)
        if ready.documents:
            await store.aadd_documents(ready.documents, ids=ready.ids)
            ready.check(store)
    return written.settled()


class _Written:
    """What became of all documents so far."""

    def __init__(self) -> None:
        self.ids: list[str | None] = []
        self.errors: list[ItemError] = []

    def settled(self) -> list[str]:
        if self.errors:
            raise BatchError(self.errors, self.ids)
        return [each for each in self.ids if each is not None]


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


def _embeddings(store: VectorStore, embeddings: Qwen3VLEmbeddings | None) -> Qwen3VLEmbeddings:
    own = store.embeddings
    if not isinstance(own, Qwen3VLEmbeddings):
        raise StoreError(
            f"{type(store).__name__} embeds with {type(own).__name__}, which knows only texts: make the store with "
            "Qwen3VLEmbeddings"
        )
    if embeddings is not None and embeddings is not own:
        embeddings.embedder.recipe.check(own.embedder.recipe, type(store).__name__)
    return own


def _batches(documents: Iterable[Any], size: int) -> Iterator[list[Any]]:
    if size < 1:
        raise ValueError(f"batch_size is {size}; it is at least 1")
    stream = iter(documents)
    while batch := list(islice(stream, size)):
        yield batch


def _prepare(embeddings: Qwen3VLEmbeddings, batch: list[Any], written: _Written) -> _Ready:
    """Embeds a batch; what became of it goes to `written`."""
    start = len(written.ids)
    documents = [to_langchain(each) if isinstance(each, Document) else each for each in batch]
    inputs, failed = as_inputs(documents, embeddings.keys)
    found = embeddings.embedder.embed(list(inputs.values()), on_error="collect")
    places = list(inputs)
    failed |= {places[error.index]: error.at(places[error.index]) for error in found.errors}
    ready: dict[str, LangChainDocument] = {}
    ids: list[str | None] = [None] * len(batch)
    for place, vector in zip(places, found.values, strict=True):
        if place in failed:
            continue
        document = documents[place]
        ids[place] = own = document.id or from_langchain(document, embeddings.keys).id
        text = Ready(document.page_content, vector.tolist())
        # Not validated: that would make a plain text of it.
        ready[own] = LangChainDocument.model_construct(id=own, page_content=text, metadata=document.metadata)
    written.ids += ids
    written.errors += [failed[place].at(start + place) for place in sorted(failed)]
    return _Ready(list(ready.values()), list(ready))

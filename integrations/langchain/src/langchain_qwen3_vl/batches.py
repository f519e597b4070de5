"""Batches of documents that are embedded for a vector store."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args
from uuid import NAMESPACE_OID, uuid5

from langchain_core.documents import Document as LangChainDocument
from langchain_core.vectorstores import VectorStore

from langchain_qwen3_vl.documents import to_langchain
from langchain_qwen3_vl.embeddings import Qwen3VLEmbeddings
from langchain_qwen3_vl.inputs import content_name
from langchain_qwen3_vl.precomputed import PrecomputedText
from qwen3vl.adapters.inputs import input_or_error
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.documents import Document
from qwen3vl.errors import BatchError, InputError, ItemError, StoreError

if TYPE_CHECKING:
    from qwen3vl import Batch

_IDS_IN_MESSAGE = 5
_ERRORS_IN_MESSAGE = 5

AnyDocument: TypeAlias = LangChainDocument | Document
OnError: TypeAlias = Literal["raise", "skip"]
"""What to do with documents that cannot be embedded: raise a `BatchError` at the end, or log and leave them out."""
log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True, eq=False)
class _PreparedBatch:
    """Documents with their ids.

    Attributes:
        documents: The documents, as those of LangChain.
        ids: Their ids, or the `InputError` of a document that cannot have one.
        contents: What is embedded: the documents, with the errors in place of those that have one.
    """

    documents: list[LangChainDocument]
    ids: list[Any]
    contents: list[Any]

    @classmethod
    def of(cls, batch: Sequence[AnyDocument]) -> Self:
        documents = [to_langchain(document) if isinstance(document, Document) else document for document in batch]
        ids = [input_or_error(document, _document_id, content_name(document)) for document in documents]
        contents = [
            document_id if isinstance(document_id, InputError) else document
            for document, document_id in zip(documents, ids, strict=True)
        ]
        return cls(documents, ids, contents)


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

    def embed(self, batch: Sequence[AnyDocument]) -> EmbeddedBatch:
        """Embed the next documents, and record their ids and failures.

        Args:
            batch: The documents that follow those embedded so far.

        Returns:
            The documents that could be embedded. Of several with the same id only the last one.
        """
        prepared = _PreparedBatch.of(batch)
        return self._record(prepared, self.embeddings.collect(prepared.contents))

    async def aembed(self, batch: Sequence[AnyDocument]) -> EmbeddedBatch:
        """Embed the next documents as `embed` does, without blocking the event loop.

        Args:
            batch: As for `embed`.

        Returns:
            As `embed` returns.
        """
        # The ids are digests of the metadata, which may hold megabytes of encoded images.
        prepared = await run_in_executor(_PreparedBatch.of, batch)
        return self._record(prepared, await self.embeddings.acollect(prepared.contents))

    def _record(self, prepared: _PreparedBatch, vectors: Batch) -> EmbeddedBatch:
        start = len(self.ids)
        embedded: dict[str, LangChainDocument] = {}
        for document, document_id, vector, ok in zip(
            prepared.documents, prepared.ids, vectors.values, vectors.ok, strict=True
        ):
            if not ok:
                self.ids.append(None)
                continue
            self.ids.append(document_id)
            text = PrecomputedText(document.page_content, vector.tolist())
            embedded[document_id] = document_of(text, document.metadata, document_id)
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

    def finish(self, on_error: OnError) -> list[str]:
        """Return the ids of the documents that were written.

        Args:
            on_error: What to do if documents could not be embedded.

        Returns:
            The ids, in the order of the documents.

        Raises:
            BatchError: Documents could not be embedded, and `on_error` is `"raise"`.
            ValueError: `on_error` has another value.
        """
        check_on_error(on_error)
        if self.errors and on_error == "raise":
            raise BatchError(self.errors, self.ids)
        for error in self.errors:
            log.warning("not added: %s", error)
        return [document_id for document_id in self.ids if document_id is not None]


def check_on_error(on_error: OnError) -> None:
    """Check what is to be done with documents that cannot be embedded.

    Args:
        on_error: The value.

    Raises:
        ValueError: It is another one.
    """
    if on_error not in get_args(OnError):
        raise ValueError(f'on_error is {on_error!r}; it must be "raise" or "skip"')


def _document_id(document: LangChainDocument) -> str:
    """Return a document's id, or a UUID of text and metadata: equal texts of two owners are different documents."""
    if not isinstance(document, LangChainDocument):
        raise InputError(f"it is no document of LangChain or qwen3vl, but a {type(document).__name__}")
    if document.id:
        return document.id
    try:
        content = json.dumps([document.page_content, document.metadata], sort_keys=True, default=repr)
    except Exception as error:  # `repr` of others' objects may raise anything
        raise InputError(
            "its id cannot be computed, because its metadata cannot be written as JSON "
            f"({type(error).__name__}: {error}); give the document an id, or metadata of plain values"
        ) from error
    return str(uuid5(NAMESPACE_OID, content))


def document_of(text: str, metadata: dict[str, Any], document_id: str | None) -> LangChainDocument:
    """Return a document without validation, because pydantic would convert a `PrecomputedText` to a plain str.

    Args:
        text: The text.
        metadata: The metadata.
        document_id: The id.

    Returns:
        The document, which holds the same text object.
    """
    return LangChainDocument.model_construct(id=document_id, page_content=text, metadata=metadata)


def with_ids(documents: Sequence[LangChainDocument], ids: Sequence[str | None] | None) -> list[LangChainDocument]:
    """Return documents with other ids.

    Args:
        documents: The documents.
        ids: An id for each document, or None in its place for the document's own; None for all documents' own.

    Returns:
        The documents, copied where the id differs.

    Raises:
        ValueError: There are more or fewer ids than documents.
    """
    if ids is None:
        return list(documents)
    if len(ids) != len(documents):
        raise ValueError(f"there are {len(ids)} ids for {len(documents)} documents; pass one id for each")
    return [
        document if document_id is None else document.model_copy(update={"id": document_id})
        for document, document_id in zip(documents, ids, strict=True)
    ]

"""A mix-in with which LangChain's vector stores embed documents with images and videos themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, Self, TypeVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

from langchain_qwen3_vl.batches import AddProgress, EmbeddedBatch, OnError, check_on_error, document_of, with_ids
from langchain_qwen3_vl.precomputed import is_precomputed
from langchain_qwen3_vl.vector_stores import (
    awrite_documents,
    media_embeddings,
    replace_embeddings,
    require_dense,
    write_documents,
)
from qwen3vl.errors import StoreError

StoreT = TypeVar("StoreT", bound="Qwen3VLVectorStore")


class Qwen3VLVectorStore(VectorStore):
    """Mix-in for any LangChain vector store class: its methods that add documents embed their media too.

    Put it before the store class. Everything that calls `add_documents`, `aadd_documents`, `add_texts` (with
    `metadatas`), `update_document`, `update_documents` or `from_documents` is then right for documents with media,
    LangChain's `index` and `ParentDocumentRetriever` included. Searching is the store's own. The store must be created
    with `Qwen3VLEmbeddings`, or with a `CacheBackedEmbeddings` around them.

    Documents that cannot be embedded do not stop the others. A document without an id gets a UUID of its text and
    metadata, so that adding it again replaces it.

    Attributes:
        on_error: What is done with documents that cannot be embedded. `"raise"`: they are in the `BatchError` that is
            raised after the others are written, which ends LangChain's `index` there. `"skip"`: they are named in the
            log and left out. It can be set in the class and in the object; the methods that create a store read that
            of the class.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLVectorStore
        from PIL import Image
        from qwen3vl import MediaPolicy


        class MediaStore(Qwen3VLVectorStore, InMemoryVectorStore):
            pass


        Image.new("RGB", (96, 96), "red").save("red.png")
        embeddings = Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=["."]))
        documents = [Document("", metadata={"image": "red.png"}), Document("a blue star")]
        store = MediaStore.from_documents(documents, embeddings)
        print(store.similarity_search("a blue star", k=1)[0].page_content)
        ```
    """

    on_error: OnError = "raise"

    def add_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Embed documents by their text and media, and add them.

        Args:
            documents: The documents.
            ids: Their ids, in place of their own.
            **kwargs: Further arguments of the store's method.

        Returns:
            The ids of the documents that are written, in their order.

        Raises:
            BatchError: Documents cannot be embedded, and `on_error` is `"raise"`. The others are written; `results` has
                their ids, with None for those that failed.
            StoreError: The store does not embed with `Qwen3VLEmbeddings`, or changes texts before it embeds them.
        """
        documents = list(documents)  # a generator is read twice here
        if is_precomputed([document.page_content for document in documents]):
            return super().add_documents(documents, **_ids_argument(ids), **kwargs)
        return write_documents(
            self,
            with_ids(documents, ids),
            lambda target, batch: target.add_documents(batch.documents, ids=batch.ids, **kwargs),
            on_error=self.on_error,
        )

    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        """Add documents as `add_documents` does, without blocking the event loop.

        Args:
            documents: As for `add_documents`.
            ids: As for `add_documents`.
            **kwargs: As for `add_documents`.

        Returns:
            As `add_documents` returns.

        Raises:
            BatchError: As for `add_documents`.
            StoreError: As for `add_documents`.
        """
        documents = list(documents)  # a generator is read twice here
        if is_precomputed([document.page_content for document in documents]):
            return await super().aadd_documents(documents, **_ids_argument(ids), **kwargs)
        return await awrite_documents(
            self,
            with_ids(documents, ids),
            lambda target, batch: target.aadd_documents(batch.documents, ids=batch.ids, **kwargs),
            on_error=self.on_error,
        )

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> list[str]:
        """Embed texts together with the media that their metadata refer to, and add them.

        Args:
            texts: The texts.
            metadatas: Metadata of each text.
            ids: Ids of the texts.
            *args: Further arguments of the store's method.
            **kwargs: Further arguments of the store's method.

        Returns:
            The ids of the texts that are written, in their order.

        Raises:
            BatchError: As for `add_documents`.
            StoreError: As for `add_documents`.
        """
        texts = list(texts)
        if not is_precomputed(texts):
            return write_documents(
                self,
                _to_documents(texts, metadatas, ids),
                lambda target, batch: target.add_texts(*_columns(batch), *args, **kwargs),
                on_error=self.on_error,
            )
        if getattr(super().add_texts, "__func__", None) is VectorStore.add_texts:
            # The base class would call `add_documents` with new documents, whose texts have lost their vectors.
            return super().add_documents(_to_documents(texts, metadatas, ids), **_ids_argument(ids), **kwargs)
        if args:
            return super().add_texts(texts, metadatas, ids, *args, **kwargs)  # type: ignore[call-arg]
        return super().add_texts(texts, metadatas, **_ids_argument(ids), **kwargs)

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        ids: list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> list[str]:
        """Add texts as `add_texts` does, without blocking the event loop.

        Args:
            texts: As for `add_texts`.
            metadatas: As for `add_texts`.
            ids: As for `add_texts`.
            *args: As for `add_texts`.
            **kwargs: As for `add_texts`.

        Returns:
            As `add_texts` returns.

        Raises:
            BatchError: As for `add_documents`.
            StoreError: As for `add_documents`.
        """
        texts = list(texts)
        if not is_precomputed(texts):
            return await awrite_documents(
                self,
                _to_documents(texts, metadatas, ids),
                lambda target, batch: target.aadd_texts(*_columns(batch), *args, **kwargs),
                on_error=self.on_error,
            )
        if getattr(super().aadd_texts, "__func__", None) is not VectorStore.aadd_texts:
            if args:
                return await super().aadd_texts(texts, metadatas, ids, *args, **kwargs)  # type: ignore[call-arg]
            return await super().aadd_texts(texts, metadatas, **_ids_argument(ids), **kwargs)
        if getattr(super().aadd_documents, "__func__", None) is not VectorStore.aadd_documents:
            return await super().aadd_documents(_to_documents(texts, metadatas, ids), **_ids_argument(ids), **kwargs)
        return await asyncio.to_thread(self.add_texts, texts, metadatas, ids, *args, **kwargs)

    def update_documents(self, ids: list[str], documents: list[Document]) -> None:
        """Embed documents by their text and media, and replace stored ones. `update_document` of Chroma calls this.

        Args:
            ids: The ids of the stored documents.
            documents: Their new versions.

        Raises:
            NotImplementedError: The store has no such method; `add_documents` with the same ids replaces there.
            BatchError: As for `add_documents`.
            StoreError: As for `add_documents`.
        """
        update = getattr(super(), "update_documents", None)
        if update is None:
            raise NotImplementedError(
                f"{type(self).__name__} has no update_documents; add_documents(documents, ids=ids) replaces documents "
                "with the same ids"
            )
        documents = list(documents)
        if is_precomputed([document.page_content for document in documents]):
            update(ids, documents)
            return
        write_documents(
            self,
            with_ids(documents, ids),
            lambda target, batch: target.update_documents(batch.ids, batch.documents),
            on_error=self.on_error,
        )

    @classmethod
    def from_documents(cls, documents: list[Document], embedding: Embeddings, **kwargs: Any) -> Self:
        """Create a store, and add documents by their text and media.

        Args:
            documents: The documents.
            embedding: `Qwen3VLEmbeddings`, or a `CacheBackedEmbeddings` around them.
            **kwargs: Further arguments of the store's method, such as `ids`.

        Returns:
            The store.

        Raises:
            BatchError: Documents cannot be embedded, and `on_error` of the class is `"raise"`. The others are written.
                To keep a store in memory nevertheless, create it first, and call `add_documents`, or set `"skip"`.
                Also if no document can be embedded; the store is not created then.
            StoreError: The embeddings are others, the store is a sparse one, or it changes texts before it embeds them.
        """
        require_dense(cls, kwargs.get("retrieval_mode"))
        check_on_error(cls.on_error)
        progress = AddProgress(_require_media_embeddings(embedding))
        embedded = progress.embed(with_ids(list(documents), kwargs.pop("ids", None)))
        _check_any(progress, embedded)
        store = super().from_documents(embedded.documents, progress.embeddings, ids=embedded.ids, **kwargs)
        return _finish(store, embedding, progress, embedded)

    @classmethod
    async def afrom_documents(cls, documents: list[Document], embedding: Embeddings, **kwargs: Any) -> Self:
        """Create a store as `from_documents` does, without blocking the event loop.

        Args:
            documents: As for `from_documents`.
            embedding: As for `from_documents`.
            **kwargs: As for `from_documents`.

        Returns:
            The store.

        Raises:
            BatchError: As for `from_documents`.
            StoreError: As for `from_documents`.
        """
        require_dense(cls, kwargs.get("retrieval_mode"))
        check_on_error(cls.on_error)
        progress = AddProgress(_require_media_embeddings(embedding))
        embedded = await progress.aembed(with_ids(list(documents), kwargs.pop("ids", None)))
        _check_any(progress, embedded)
        store = await super().afrom_documents(embedded.documents, progress.embeddings, ids=embedded.ids, **kwargs)
        return _finish(store, embedding, progress, embedded)


def _check_any(progress: AddProgress, embedded: EmbeddedBatch) -> None:
    """Check that there is something to create a store of: FAISS does not create an empty one."""
    if progress.errors and not embedded.documents:
        progress.finish("raise")


def _finish(store: StoreT, embedding: Embeddings, progress: AddProgress, embedded: EmbeddedBatch) -> StoreT:
    """Check a store that was created with precomputed texts, and give it the embeddings that the caller passed."""
    embedded.check_taken(store)
    if embedding is not progress.embeddings:
        replace_embeddings(store, progress.embeddings, embedding)
    progress.finish(store.on_error)
    return store


def _require_media_embeddings(embedding: Embeddings) -> Any:
    embeddings = media_embeddings(embedding)
    if embeddings is None:
        raise StoreError(f"{type(embedding).__name__} embeds only texts; create the store with Qwen3VLEmbeddings")
    return embeddings


def _ids_argument(ids: list[str] | None) -> dict[str, Any]:
    return {} if ids is None else {"ids": ids}


def _to_documents(
    texts: Sequence[str], metadatas: list[dict[str, Any]] | None, ids: list[str] | None
) -> list[Document]:
    documents = [
        document_of(text, metadata or {}, None)
        for text, metadata in zip(texts, metadatas or [{} for _ in texts], strict=True)
    ]
    return with_ids(documents, ids)


def _columns(batch: EmbeddedBatch) -> tuple[list[str], list[dict[str, Any]], list[str]]:
    """Return the texts, metadata and ids of a batch."""
    return (
        [document.page_content for document in batch.documents],
        [document.metadata for document in batch.documents],
        batch.ids,
    )

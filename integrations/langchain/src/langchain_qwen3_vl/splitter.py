"""A text splitter that keeps documents with images and videos."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from langchain_core.documents import Document
from langchain_text_splitters import TextSplitter

from qwen3vl.adapters.encoded_images import image_data_uri
from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys, has_media


class Qwen3VLSplitter(TextSplitter):
    """Splits texts with another splitter, and passes on documents that have an image or a video.

    LangChain's splitters make a chunk of each part of a text, so that a document without text has no chunk and is lost,
    and the media of a document with a long text are repeated for each of its chunks. Here such a document is one chunk:
    a copy with the same text, metadata and id. In a `ParentDocumentRetriever` it gets the id of its parent, as each
    chunk does; use a store class with `Qwen3VLVectorStore` there, which embeds the media.

    Args:
        splitter: Splits the texts of documents without media.
        media_keys: Metadata keys under which documents carry media references.

    Attributes:
        splitter: The splitter of texts.
        media_keys: Metadata keys of media references.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_qwen3_vl import Qwen3VLSplitter
        from langchain_text_splitters import CharacterTextSplitter

        splitter = Qwen3VLSplitter(CharacterTextSplitter(separator=" ", chunk_size=12, chunk_overlap=0))
        documents = [Document("a red circle and a star"), Document("", metadata={"image": "red.png"})]
        print([document.page_content for document in splitter.split_documents(documents)])
        ```
    """

    def __init__(self, splitter: TextSplitter, *, media_keys: MediaKeys = DEFAULT_KEYS) -> None:
        super().__init__()
        self.splitter = splitter
        self.media_keys = media_keys

    def split_text(self, text: str) -> list[str]:
        """Split a text with the wrapped splitter.

        Args:
            text: The text.

        Returns:
            Its chunks; a text that is the base64 of an image is one chunk.
        """
        return self.splitter.split_text(text) if image_data_uri(text) is None else [text]

    def create_documents(self, texts: list[str], metadatas: list[dict[Any, Any]] | None = None) -> list[Document]:
        """Make documents of texts, and split those that have no media.

        Args:
            texts: The texts.
            metadatas: Metadata of each text.

        Returns:
            The chunks, in the order of the texts.
        """
        metadatas = metadatas or [{} for _ in texts]
        return self.split_documents(
            Document(text, metadata=metadata) for text, metadata in zip(texts, metadatas, strict=True)
        )

    def split_documents(self, documents: Iterable[Document]) -> list[Document]:
        """Split documents that have no media.

        Args:
            documents: The documents.

        Returns:
            The chunks, in the order of the documents.
        """
        chunks: list[Document] = []
        for document in documents:
            if has_media(document.metadata, self.media_keys) or image_data_uri(document.page_content) is not None:
                chunks.append(document.model_copy(update={"metadata": copy.deepcopy(document.metadata)}))
            else:
                chunks += self.splitter.split_documents([document])
        return chunks

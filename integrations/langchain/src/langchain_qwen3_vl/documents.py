"""Conversion between LangChain's documents and those of `qwen3vl`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from langchain_core.documents import Document as LangChainDocument

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys, document_from_metadata
from qwen3vl.documents import Document


def to_langchain(document: Document) -> LangChainDocument:
    """Convert a document of `qwen3vl` to one of LangChain.

    Args:
        document: A document, as `qwen3vl.Loader` and `qwen3vl.Retriever` return it.

    Returns:
        The id as `id`, the text as `page_content`, and the other fields as metadata, with media references under
        `image` and `video`.

    Example:
        ```python
        from langchain_qwen3_vl import to_langchain
        from qwen3vl import Document

        page = Document("report.pdf", "page", locator="page=3", image="report.pdf#page=3")
        print(to_langchain(page).metadata["image"])
        ```
    """
    return LangChainDocument(id=document.id, **document.to_payload())


def from_langchain(document: LangChainDocument, keys: MediaKeys = DEFAULT_KEYS) -> Document:
    """Convert a LangChain document to one of `qwen3vl`, for example for `qwen3vl.ingest`.

    With the default keys, a document that `to_langchain` returned is converted back without loss. A text that is the
    base64 of an image becomes the document's image.

    Args:
        document: A LangChain document. Its metadata may hold media references.
        keys: Metadata keys of media references.

    Returns:
        The document.

    Raises:
        InputError: A media reference is not a str.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_qwen3_vl import from_langchain

        photo = Document("the harbour at night", metadata={"image": "harbour.jpg"})
        print(from_langchain(photo).image)
        ```
    """
    return document_from_metadata(document.page_content, document.metadata, keys)


def with_metadata(
    document: LangChainDocument, metadata: Mapping[str, Any], *, without: Collection[str]
) -> LangChainDocument:
    """Return a copy of a document with other metadata.

    Args:
        document: The document; it is not changed.
        metadata: What is added, or replaces what is there.
        without: Keys that are removed before, since an earlier run may have set them.

    Returns:
        The copy.
    """
    kept = {key: value for key, value in document.metadata.items() if key not in without}
    return document.model_copy(update={"metadata": {**kept, **metadata}})

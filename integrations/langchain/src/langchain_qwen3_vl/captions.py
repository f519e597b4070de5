"""Finds out whether texts that are embedded belong to documents whose media their caller leaves out.

LangChain's vector stores and filters pass the `page_content` of documents to the embeddings, without their metadata.
The documents, or the metadata of the texts, are local variables of the functions that call. They are only read here,
for a warning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from qwen3vl.adapters.encoded_images import image_data_uri
from qwen3vl.adapters.media_keys import MediaKeys, has_media

_MAX_FRAMES = 24
_DOCUMENT_VARIABLES = ("documents", "docs")
"""What LangChain's stores, filters and most callers name lists of documents."""


@dataclass(frozen=True, slots=True)
class Captions:
    """Texts of documents that have media.

    Attributes:
        function: The function that has the documents, such as `Chroma.add_documents`.
        num_documents: Number of documents that have media.
    """

    function: str
    num_documents: int


def captions_of_caller(values: Sequence[Any], keys: MediaKeys) -> Captions | None:
    """Look for documents with media in the frames of the functions that embed these values.

    Args:
        values: What is embedded.
        keys: Metadata keys of media references.

    Returns:
        What was found in the nearest frame that has documents with one of these texts, or the `metadatas` of a vector
        store's texts; None if the documents are not known, have no media, or are embedded themselves.
    """
    # A text that is an image itself is embedded as one.
    texts = {value for value in values if isinstance(value, str) and image_data_uri(value) is None}
    if not texts:
        return None
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 (as `inspect` does)
    for _ in range(_MAX_FRAMES):
        if frame is None:
            return None
        metadatas = _metadatas(frame, texts)
        if metadatas is not None:
            num_documents = sum(has_media(metadata, keys) for metadata in metadatas)
            return Captions(_function_name(frame), num_documents) if num_documents else None
        frame = frame.f_back
    return None


def _metadatas(frame: FrameType, texts: set[str]) -> list[Mapping[str, Any]] | None:
    """Return the metadata of the documents that a frame has, or None if it has none with these texts."""
    names = frame.f_code.co_varnames
    for name in _DOCUMENT_VARIABLES:
        documents = frame.f_locals.get(name) if name in names else None
        if isinstance(documents, (list, tuple)):
            of_texts: list[Mapping[str, Any]] = [
                document.metadata
                for document in documents
                if isinstance(document, Document) and document.page_content in texts
            ]
            if of_texts:
                return of_texts
    if "metadatas" in names and _store_class(frame) is not None:
        metadatas = frame.f_locals.get("metadatas")
        if isinstance(metadatas, (list, tuple)):
            return _mappings(metadatas)
    return None


def _mappings(values: Iterable[Any]) -> list[Mapping[str, Any]]:
    return [value for value in values if isinstance(value, Mapping)]


def _function_name(frame: FrameType) -> str:
    """Return the name of the outermost method of the vector store, so of the one that the caller has called."""
    name = frame.f_code.co_name
    outer: FrameType | None = frame
    for _ in range(_MAX_FRAMES):
        if outer is None:
            break
        store_class = _store_class(outer)
        if store_class is not None:
            name = f"{store_class.__name__}.{outer.f_code.co_name}"
        outer = outer.f_back
    return name


def _store_class(frame: FrameType) -> type[VectorStore] | None:
    """Return the class of the vector store whose method a frame runs."""
    if frame.f_code.co_argcount == 0 or frame.f_code.co_varnames[0] not in ("self", "cls"):
        return None
    receiver = frame.f_locals.get(frame.f_code.co_varnames[0])
    if isinstance(receiver, VectorStore):
        return type(receiver)
    return receiver if isinstance(receiver, type) and issubclass(receiver, VectorStore) else None

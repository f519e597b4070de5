"""Texts that carry their vectors through LangChain's vector stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeGuard


class PrecomputedText(str):
    """A text that carries its vector, so that a vector store stores the text under that vector.

    LangChain's vector stores accept only texts: `VectorStore.add_documents` passes the `page_content` of documents to
    `Embeddings.embed_documents`, without their metadata, and there is no common interface for vectors that were
    computed before (https://github.com/langchain-ai/langchain/issues/5945). The vector of a document with an image or
    video is therefore attached to its text: `add_documents` replaces `page_content` by a `PrecomputedText`, the store
    passes this str on unchanged, and `Qwen3VLEmbeddings.embed_documents` returns its vector.

    Copies and pickles of it are plain texts.

    Args:
        text: The text; it may be empty.
        vector: Its vector, of `dimensions` floats.

    Attributes:
        vector: The vector; None once `take` has returned it.
        taken: Whether `take` was called.

    Example:
        ```python
        from langchain_qwen3_vl import Qwen3VLEmbeddings
        from langchain_qwen3_vl.precomputed import PrecomputedText

        embeddings = Qwen3VLEmbeddings(model="tiny")
        vector = embeddings.embed_query("a blue square")
        assert embeddings.embed_documents([PrecomputedText("a red circle", vector)]) == [vector]
        ```
    """

    __slots__ = ("taken", "vector")
    vector: list[float] | None
    taken: bool

    def __new__(cls, text: str, vector: list[float]) -> Self:
        """Create the text; a str is immutable, so there is no `__init__`.

        Args:
            text: The text; it may be empty.
            vector: Its vector, of `dimensions` floats.

        Returns:
            The text with its vector.
        """
        precomputed = super().__new__(cls, text)
        precomputed.vector = vector
        precomputed.taken = False
        return precomputed

    def take(self) -> list[float]:
        """Return the vector and drop it, so that a store that keeps the text does not keep the vector twice.

        Returns:
            The vector; an empty list if it was taken before.
        """
        vector, self.vector, self.taken = self.vector, None, True
        return vector or []

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


def is_precomputed(texts: Sequence[Any]) -> TypeGuard[Sequence[PrecomputedText]]:
    """Return whether texts carry their vectors.

    Args:
        texts: Any texts.

    Returns:
        True if there is a text, and each is a `PrecomputedText` whose vector was not taken.
    """
    return bool(texts) and all(isinstance(text, PrecomputedText) and text.vector is not None for text in texts)


def take_vectors(texts: Sequence[PrecomputedText]) -> list[list[float]]:
    """Take the vectors of texts.

    Args:
        texts: Texts that have their vectors; the same object may be there several times.

    Returns:
        A vector for each text.
    """
    vectors = {key: text.take() for key, text in {id(text): text for text in texts}.items()}
    return [vectors[id(text)] for text in texts]

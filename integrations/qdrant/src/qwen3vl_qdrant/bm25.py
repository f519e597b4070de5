"""Sparse vectors of the words of a text, for search by exact words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any
from unicodedata import combining, normalize

import qdrant_edge as edge
from qdrant_client import models

from qwen3vl.errors import RecipeError

_VERSION = 1
"""Version of what decides the vectors besides the settings."""
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
"""Chinese and Japanese characters, which Qdrant's tokenizer takes for one word up to the next space."""


@dataclass(frozen=True, slots=True)
class Bm25:
    """How the words of documents and queries are indexed and compared: BM25, by Qdrant's own implementation.

    The weights of a document's words are in its sparse vector; their rarity (IDF) is the collection's, and is computed
    by Qdrant for each search. Words are lowercased. Chinese and Japanese are compared by pairs of characters.

    Attributes:
        language: Language of stop words and stemmer, in English (`"german"`); None for neither.
        stemming: Whether words are reduced to their stems, so that "valves" finds "valve".
        stop_words: Words that are not indexed; None is the language's.
        ascii_folding: Whether accents are ignored, so that "cafe" finds "café".

    Raises:
        ValueError: The language is unknown.

    Example:
        ```python
        QdrantEdgeStore("library", layout=Layout(hybrid=Bm25(language="german", stemming=False)))
        ```
    """

    language: str | None = "english"
    stemming: bool = True
    stop_words: Sequence[str] | None = None
    ascii_folding: bool = False

    def __post_init__(self) -> None:
        if self.language is not None and self.language not in _LANGUAGES:
            raise ValueError(f"language is {self.language!r}; it may be {', '.join(sorted(_LANGUAGES))} or None")
        if self.stop_words is not None:
            object.__setattr__(self, "stop_words", tuple(sorted({word.lower() for word in self.stop_words})))

    def embed_document(self, text: str) -> models.SparseVector:
        """Return the vector of a document's text.

        Args:
            text: The text; `Document.words` for a document.

        Returns:
            A weight for each of its words; no values if it has none.
        """
        return _to_vector(_model(self).embed_document(_split(text)))

    def embed_query(self, text: str) -> models.SparseVector:
        """Return the vector of a query's text.

        Args:
            text: The text.

        Returns:
            The weight 1 for each of its words; no values if it has only stop words.
        """
        return _to_vector(_model(self).embed_query(_split(text)))

    def sparse_doc_fn(self, texts: Iterable[str]) -> tuple[list[list[int]], list[list[float]]]:
        """Return the vectors of documents in the form of LlamaIndex's `QdrantVectorStore(sparse_doc_fn=...)`.

        Args:
            texts: The texts.

        Returns:
            Indices and values of each vector.
        """
        return _to_lists([self.embed_document(text) for text in texts])

    def sparse_query_fn(self, texts: Iterable[str]) -> tuple[list[list[int]], list[list[float]]]:
        """Return the vectors of queries in the form of LlamaIndex's `QdrantVectorStore(sparse_query_fn=...)`.

        Args:
            texts: The texts.

        Returns:
            Indices and values of each vector.
        """
        return _to_lists([self.embed_query(text) for text in texts])

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as they are stored in the collection's metadata."""
        stop_words = None if self.stop_words is None else list(self.stop_words)
        return {"version": _VERSION, **asdict(self), "stop_words": stop_words}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Bm25:
        """Read what `to_dict` returned.

        Args:
            stored: The settings by name.

        Returns:
            The settings.

        Raises:
            RecipeError: They were written by a newer version.
        """
        names = {field.name for field in fields(cls)}
        if set(stored) != {"version", *names} or stored["version"] != _VERSION:
            raise RecipeError("the collection's text vectors are of another version: use the version that wrote them")
        return cls(**{name: stored[name] for name in names})


def _names(enumeration: type) -> set[str]:
    return {name.lower() for name in vars(enumeration) if not name.startswith("_")}


_LANGUAGES = _names(edge.Language) | _names(edge.SnowballLanguage)


@lru_cache(maxsize=16)
def _model(settings: Bm25) -> edge.Bm25:
    stop_words = settings.stop_words
    if stop_words is None and settings.language is None:
        stop_words = ()
    elif stop_words and settings.ascii_folding:  # words are folded before they are compared with stop words
        stop_words = [*stop_words, *map(_fold, stop_words)]
    return edge.Bm25(
        edge.Bm25Config(
            language=settings.language,
            ascii_folding=settings.ascii_folding,
            stopwords=None if stop_words is None else edge.StopwordsSet(custom={*stop_words}),
            stemmer=None if settings.stemming and settings.language is not None else edge.DisabledStemmer(),
        )
    )


def _fold(word: str) -> str:
    return "".join(character for character in normalize("NFD", word) if not combining(character))


def _split(text: str) -> str:
    """Write the pairs of neighbouring Chinese and Japanese characters as words."""
    return _UNSPACED.sub(lambda match: f" {' '.join(_pairs(match[0]))} ", text)


def _pairs(run: str) -> list[str]:
    return [run[start : start + 2] for start in range(max(1, len(run) - 1))]


def _to_vector(vector: edge.SparseVector) -> models.SparseVector:
    # Not validated: Edge made it.
    return models.SparseVector.model_construct(indices=vector.indices, values=vector.values)


def _to_lists(vectors: Sequence[models.SparseVector]) -> tuple[list[list[int]], list[list[float]]]:
    return [vector.indices for vector in vectors], [vector.values for vector in vectors]

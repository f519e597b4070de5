"""Queries with images and videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import QueryBundle

from qwen3vl._deprecation import deprecated_alias
from qwen3vl.inputs import as_item


class EmbeddedQueries(list[str]):
    """The texts of a query whose vector is known.

    `MultiModalVectorStoreIndex` ignores the vector of a bundle and embeds its texts; `Qwen3VLEmbedding` returns the
    vector that comes with them.

    Args:
        texts: The texts of the query.
        vector: Its vector.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
        from llama_index.embeddings.qwen3_vl.queries import EmbeddedQueries

        embed_model = Qwen3VLEmbedding(model_name="tiny")
        assert embed_model.get_agg_embedding_from_queries(EmbeddedQueries([""], [1.0])) == [1.0]
        ```
    """

    def __init__(self, texts: list[str], vector: list[float]) -> None:
        super().__init__(texts)
        self.vector = vector


@dataclass
class MediaQuery(QueryBundle):
    """A `QueryBundle` with its vector and with the whole query, which `Qwen3VLRerank` scores nodes by.

    Any retriever accepts it. `query_str`, `image_path` and `embedding` hold as much of the query as they can.

    Attributes:
        query: The query as `Embedder.embed` accepts it: a str, or a mapping with any of text, image and video.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

        embed_model = Qwen3VLEmbedding(model_name="tiny")
        bundle = embed_model.query_bundle({"text": "a red circle"})
        assert (bundle.query_str, bundle.query) == ("a red circle", {"text": "a red circle"})
        ```
    """

    query: Any = None

    given = deprecated_alias("MediaQuery", "given", "query")

    @property
    def embedding_strs(self) -> list[str]:
        """The texts that LlamaIndex embeds for this query, with the vector of the whole query if it is known."""
        if self.embedding is None:
            return super().embedding_strs
        return EmbeddedQueries([self.query_str], self.embedding)


def media_query(query: Any, vector: list[float]) -> MediaQuery:
    """Return the bundle of a query whose vector is known.

    Args:
        query: An input as `Embedder.embed` accepts it.
        vector: Its vector.

    Returns:
        The bundle. Its `image_path` is the path or URL of the first image that has one and is not a PDF page, or None.

    Raises:
        InputError: The query is no input.
    """
    item = as_item(query)
    paths = [image.data for image in item.images if image.origin in ("path", "url") and image.page is None]
    return MediaQuery(
        query_str=" ".join(item.texts),
        image_path=str(paths[0]) if paths else None,
        embedding=vector,
        query=query,
    )


def bundle_input(bundle: QueryBundle) -> Any:
    """Return the whole query of a bundle.

    Args:
        bundle: Any bundle.

    Returns:
        An input of `Embedder.embed` and a query of `Reranker.rank`: what a `MediaQuery` was made of, otherwise the
        text and the image of the bundle; an empty mapping if it has neither.
    """
    if isinstance(bundle, MediaQuery) and bundle.query is not None:
        return bundle.query
    query = {"text": bundle.query_str, "image": bundle.image_path}
    return {key: value for key, value in query.items() if value}

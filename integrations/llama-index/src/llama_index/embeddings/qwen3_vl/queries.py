"""Queries with images and videos."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import QueryBundle

from qwen3vl._deprecation import deprecated_alias
from qwen3vl.inputs import as_item


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

"""LlamaIndex's methods that embed queries and the texts of documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.embeddings.qwen3_vl.batching import BatchedEmbedding
from llama_index.embeddings.qwen3_vl.queries import EmbeddedQueries, MediaQuery, media_query
from llama_index.embeddings.qwen3_vl.results import Embedding

from qwen3vl.adapters.inputs import describe_inputs
from qwen3vl.concurrency.executor import run_in_executor
from qwen3vl.errors import InputError


class TextMethods(BatchedEmbedding):
    """Embeds queries and texts; methods that begin with `a` do the same without blocking the event loop.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

        embed_model = Qwen3VLEmbedding(model_name="tiny")
        vectors = embed_model.get_text_embedding_batch(["a red circle", "a blue star"])
        assert len(vectors[0]) == len(embed_model.get_query_embedding("what is red?"))
        ```
    """

    # Queries

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed the text of a query.

        Args:
            query: The text; not empty.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The query cannot be embedded.
        """
        return self._embed_or_raise([query], [query], "query")[0]

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed the text of a query, asynchronously.

        Args:
            query: As for `get_query_embedding`.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The query cannot be embedded.
        """
        return (await self._aembed_or_raise([query], [query], "query"))[0]

    def get_multimodal_query_embedding(self, query: Any) -> Embedding:
        """Embed a query that may have images and videos.

        Args:
            query: A str, or a mapping with any of the keys text, image and video.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The query cannot be embedded.
        """
        return self._embed_or_raise([query], describe_inputs([query]), "query")[0]

    async def aget_multimodal_query_embedding(self, query: Any) -> Embedding:
        """Embed a query that may have images and videos, asynchronously.

        Args:
            query: As for `get_multimodal_query_embedding`.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The query cannot be embedded.
        """
        names = await run_in_executor(describe_inputs, [query])
        return (await self._aembed_or_raise([query], names, "query"))[0]

    def query_bundle(self, query: Any) -> MediaQuery:
        """Make a query with images and videos for any retriever and for `Qwen3VLRerank`.

        Args:
            query: A str, or a mapping with any of the keys text, image and video.

        Returns:
            A `QueryBundle` that has the query's vector.

        Raises:
            BatchError: The query cannot be embedded.
        """
        return media_query(query, self.get_multimodal_query_embedding(query))

    async def aquery_bundle(self, query: Any) -> MediaQuery:
        """Make a query with images and videos, asynchronously.

        Args:
            query: As for `query_bundle`.

        Returns:
            A `QueryBundle` that has the query's vector.

        Raises:
            BatchError: The query cannot be embedded.
        """
        vector = await self.aget_multimodal_query_embedding(query)
        return await run_in_executor(media_query, query, vector)

    def get_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> Embedding:
        """Embed the texts of queries and combine their vectors.

        Args:
            queries: The texts; at least one.
            agg_fn: Combines a list of vectors; None means their mean.

        Returns:
            The combined vector.

        Raises:
            InputError: There are no texts.
            BatchError: A query cannot be embedded.
        """
        _require_texts(queries)
        if isinstance(queries, EmbeddedQueries):
            return queries.vector
        return super().get_agg_embedding_from_queries(queries, agg_fn)

    async def aget_agg_embedding_from_queries(self, queries: list[str], agg_fn: Any = None) -> Embedding:
        """Embed the texts of queries and combine their vectors, asynchronously.

        Args:
            queries: As for `get_agg_embedding_from_queries`.
            agg_fn: As for `get_agg_embedding_from_queries`.

        Returns:
            The combined vector.

        Raises:
            InputError: There are no texts.
            BatchError: A query cannot be embedded.
        """
        _require_texts(queries)
        if isinstance(queries, EmbeddedQueries):
            return queries.vector
        return await super().aget_agg_embedding_from_queries(queries, agg_fn)

    # Texts of documents

    def get_text_embedding(self, text: str) -> Embedding:
        """Embed the text of a document.

        Args:
            text: The text; not empty.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The text cannot be embedded.
        """
        return self._embed_or_raise([text], [text], "document")[0]

    async def aget_text_embedding(self, text: str) -> Embedding:
        """Embed the text of a document, asynchronously.

        Args:
            text: As for `get_text_embedding`.

        Returns:
            Vector of length 1.

        Raises:
            BatchError: The text cannot be embedded.
        """
        return (await self._aembed_or_raise([text], [text], "document"))[0]

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **_: Any) -> list[Embedding]:
        """Embed the texts of documents, in their order.

        Called by an index with the texts of its nodes, it embeds the nodes with their media, unless `lookup_nodes`
        is off.

        Args:
            texts: The texts.
            show_progress: Whether to show a progress bar.

        Returns:
            One vector of length 1 for each text.

        Raises:
            BatchError: Texts cannot be embedded. It has the vectors of the others.
        """
        return self._embed_or_raise(self._inputs_for(texts), texts, "document", show_progress)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **_: Any
    ) -> list[Embedding]:
        """Embed the texts of documents, in their order, asynchronously.

        Args:
            texts: As for `get_text_embedding_batch`.
            show_progress: Whether to show a progress bar.

        Returns:
            One vector of length 1 for each text.

        Raises:
            BatchError: Texts cannot be embedded. It has the vectors of the others.
        """
        return await self._aembed_or_raise(self._inputs_for(texts), texts, "document", show_progress)

    def _inputs_for(self, texts: Sequence[str]) -> list[Any]:
        """Return the inputs to embed for these texts; a subclass may return those of nodes with these texts."""
        return list(texts)

    # Methods that LlamaIndex's base class requires

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed([query], "query").vectors_or_raise()[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aembed([query], "query")).vectors_or_raise()[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed([text], "document").vectors_or_raise()[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aembed([text], "document")).vectors_or_raise()[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(texts, "document").vectors_or_raise()

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return (await self._aembed(texts, "document")).vectors_or_raise()


def _require_texts(queries: Sequence[str]) -> None:
    if not queries:
        raise InputError(
            "the query has no text, and LlamaIndex's retrievers ignore the image_path of a QueryBundle. To search by "
            "an image, retrieve embed_model.query_bundle({'image': …}), or wrap the retriever in Qwen3VLRetriever"
        )

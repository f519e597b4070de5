"""A retriever over a store that `qwen3vl.ingest` filled."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from langchain_qwen3_vl.content import Content, as_input, to_langchain
from langchain_qwen3_vl.reranker import RERANK_METADATA_KEYS
from qwen3vl.retriever import AsyncRetriever, Retriever
from qwen3vl.stores import Hit


class Qwen3VLRetriever(BaseRetriever):
    """The core's `Retriever`, with callbacks, tags and metadata: search in stages, filters, groups, reranking.

    Queries are those of `Qwen3VLEmbeddings`: a str, or a mapping with any of text, image and video.  Hits carry `score`
    (the cosine) in their metadata, and `relevance_score` where a reranker judged.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: AsyncRetriever
    """A `Retriever`, or for `ainvoke` only an `AsyncRetriever`."""
    k: int = Field(default=4, ge=1)
    """How many documents are found."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `Retriever.search`: where, offset, threshold, group_by.  `invoke` takes them too."""

    def _get_relevant_documents(
        self,
        query: Content,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 (LangChain's name; nothing below reports)
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        if not isinstance(self.retriever, Retriever):
            raise TypeError("the store of an AsyncRetriever has an asynchronous client: use ainvoke")
        found = self.retriever.search(as_input(query), self.k if k is None else k, **{**self.options, **options})
        return [_document(hit) for hit in found]

    async def _aget_relevant_documents(
        self,
        query: Content,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 (as above)
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        found = await self.retriever.asearch(as_input(query), self.k if k is None else k, **{**self.options, **options})
        return [_document(hit) for hit in found]


def _document(hit: Hit) -> Document:
    found = to_langchain(hit.document)
    before = {key: value for key, value in found.metadata.items() if key not in RERANK_METADATA_KEYS}
    scores = (
        {"score": hit.score} if hit.rerank_score is None else {"score": hit.score, "relevance_score": hit.rerank_score}
    )
    return found.model_copy(update={"id": hit.id, "metadata": {**before, **scores}})

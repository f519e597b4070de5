"""A retriever over a collection that `qwen3vl.ingest` wrote."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn, Self, SupportsIndex

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, WithJsonSchema

from langchain_qwen3_vl.documents import to_langchain, with_metadata
from langchain_qwen3_vl.inputs import Content, to_query_input
from langchain_qwen3_vl.reranker import RERANK_METADATA_KEYS
from qwen3vl.retriever import AsyncRetriever, Retriever
from qwen3vl.stores import Hit


class Qwen3VLRetriever(BaseRetriever):
    """`qwen3vl.Retriever` as a LangChain retriever, with callbacks, tags and metadata.

    Queries are those of `Qwen3VLEmbeddings`: a text, or a mapping with any of text, image and video. Documents have the
    cosine similarity under `score` in their metadata, and the reranker's score under `relevance_score` if the
    retriever has a reranker. A document that the reranker cannot read comes after the others, with a `relevance_score`
    of None and the reason under `rerank_error`.

    It cannot be pickled, because its retriever holds an open store and loaded models. Copies share them.

    Attributes:
        retriever: The core's retriever, with its store and perhaps a reranker.
        k: Number of documents to return.
        options: Further arguments of `qwen3vl.Retriever.search`, such as `where`. `invoke` accepts them too.

    Example:
        Requires a store, such as Chroma (`pip install ".[torch]" ./integrations/langchain ./integrations/chroma`).

        ```python
        from langchain_qwen3_vl import Qwen3VLEmbeddings, Qwen3VLReranker, Qwen3VLRetriever
        from qwen3vl import Document, Retriever, ingest, open_store

        embedder = Qwen3VLEmbeddings(model="tiny").embedder
        reranker = Qwen3VLReranker(model="tiny").reranker
        store = open_store("chroma:colours")
        documents = [Document("notes.md", "text", text=text) for text in ("a red circle", "a blue star")]
        ingest(documents, embedder, store)
        retriever = Qwen3VLRetriever(retriever=Retriever(embedder, store, reranker), k=1)
        for document in retriever.invoke("a red circle", where={"kind": "text"}):
            print(document.page_content, document.metadata["score"], document.metadata["relevance_score"])
        store.close()
        ```
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    retriever: Annotated[AsyncRetriever, WithJsonSchema({"type": "object"})] = Field(
        description="A qwen3vl.Retriever, or for ainvoke only a qwen3vl.AsyncRetriever."
    )
    k: int = Field(default=4, ge=1, description="Number of documents to return.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of qwen3vl.Retriever.search, such as where."
    )

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            "a Qwen3VLRetriever cannot be pickled: its retriever holds an open store and loaded models. In the other "
            "process, open the store and make the retriever again: Qwen3VLRetriever(retriever=Retriever(embedder, "
            "open_store(location)))"
        )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return a copy that shares the store and the models, which cannot be copied."""
        memo = {} if memo is None else memo
        memo[id(self.retriever)] = self.retriever
        return super().__deepcopy__(memo)

    def _get_relevant_documents(
        self,
        query: Content,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 (required by LangChain; not used)
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        if not isinstance(self.retriever, Retriever):
            raise TypeError("the store of an AsyncRetriever has an asynchronous client: use ainvoke")
        hits = self.retriever.search(to_query_input(query), self.k if k is None else k, **{**self.options, **options})
        return [_hit_to_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self,
        query: Content,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,  # noqa: ARG002 (as above)
        k: int | None = None,
        **options: Any,
    ) -> list[Document]:
        hits = await self.retriever.asearch(
            to_query_input(query), self.k if k is None else k, **{**self.options, **options}
        )
        return [_hit_to_document(hit) for hit in hits]


def _hit_to_document(hit: Hit) -> Document:
    scores: dict[str, Any] = {"score": hit.score}
    if hit.rerank_score is not None or hit.rerank_error is not None:
        scores["relevance_score"] = hit.rerank_score
    if hit.rerank_error is not None:
        scores["rerank_error"] = hit.rerank_error
    document = with_metadata(to_langchain(hit.document), scores, without=RERANK_METADATA_KEYS)
    return document.model_copy(update={"id": hit.id})

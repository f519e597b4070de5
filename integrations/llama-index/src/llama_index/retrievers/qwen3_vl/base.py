"""`Qwen3VLRetriever`: any retriever, searched by the text and the image of a query."""

from __future__ import annotations

from llama_index.core.callbacks import CallbackManager
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.queries import bundle_input

from qwen3vl.errors import InputError


class Qwen3VLRetriever(BaseRetriever):
    """Searches with another retriever, by the vector of the query's text and image (`QueryBundle.image_path`) together.

    LlamaIndex's retrievers ignore the image of a query, and fail with a `TypeError` of their vector store if it has
    nothing else. Bundles that have a vector, as `Qwen3VLEmbedding.query_bundle` makes them, are passed on.

    Args:
        retriever: A retriever over vectors of the same embedding model.
        embed_model: The embedding model. Its policy must allow the images of queries.
        callback_manager: LlamaIndex's callbacks. `retriever` has its own.

    Example:
        ```python
        from llama_index.core import VectorStoreIndex
        from llama_index.core.schema import ImageNode, QueryBundle
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
        from llama_index.retrievers.qwen3_vl import Qwen3VLRetriever
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (64, 64), "red").save("red.png")
        embed_model = Qwen3VLEmbedding(model_name="tiny", policy=MediaPolicy(folders=(".",)))
        index = VectorStoreIndex(embed_model([ImageNode(image_path="red.png")]), embed_model=embed_model)
        retriever = Qwen3VLRetriever(index.as_retriever(similarity_top_k=1), embed_model)
        (hit,) = retriever.retrieve(QueryBundle("", image_path="red.png"))
        assert hit.score > 0.99
        ```
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        embed_model: Qwen3VLEmbedding,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        self.retriever = retriever
        self.embed_model = embed_model
        super().__init__(callback_manager=callback_manager)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if _needs_vector(query_bundle):
            query_bundle = self.embed_model.query_bundle(bundle_input(query_bundle))
        return self.retriever.retrieve(query_bundle)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        if _needs_vector(query_bundle):
            query_bundle = await self.embed_model.aquery_bundle(bundle_input(query_bundle))
        return await self.retriever.aretrieve(query_bundle)


def _needs_vector(bundle: QueryBundle) -> bool:
    """Return whether the other retriever would miss something of this query. It embeds texts itself."""
    query = bundle_input(bundle)
    if bundle.embedding is None and not query and not bundle.custom_embedding_strs:
        raise InputError("the query is empty: give QueryBundle a query_str that is not empty, an image_path, or both")
    return bundle.embedding is None and isinstance(query, dict) and query.keys() != {"text"} and bool(query)

"""A retriever for LlamaIndex that searches by the image of a query, too."""

from llama_index.retrievers.qwen3_vl.base import Qwen3VLRetriever

__all__ = ["Qwen3VLRetriever"]

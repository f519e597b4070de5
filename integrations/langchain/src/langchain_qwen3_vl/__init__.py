"""Qwen3-VL-Embedding and Qwen3-VL-Reranker for LangChain.

Importing this package loads neither torch nor a model; both are loaded on first use.
"""

from typing import TYPE_CHECKING, Any

from langchain_qwen3_vl.chat import content_blocks
from langchain_qwen3_vl.documents import from_langchain, to_langchain
from langchain_qwen3_vl.embeddings import Qwen3VLEmbeddings
from langchain_qwen3_vl.filters import Qwen3VLEmbeddingsFilter
from langchain_qwen3_vl.loader import Qwen3VLLoader
from langchain_qwen3_vl.media_store import Qwen3VLVectorStore
from langchain_qwen3_vl.reranker import Qwen3VLReranker
from langchain_qwen3_vl.retriever import Qwen3VLRetriever
from langchain_qwen3_vl.tools import create_retriever_tool, describe_document
from langchain_qwen3_vl.vector_stores import aadd_documents, add_documents
from qwen3vl import __version__
from qwen3vl.adapters.media_keys import MediaKeys

if TYPE_CHECKING:
    from langchain_qwen3_vl.sparse import Bm25Embeddings
    from langchain_qwen3_vl.splitter import Qwen3VLSplitter

__all__ = [
    "Bm25Embeddings",
    "MediaKeys",
    "Qwen3VLEmbeddings",
    "Qwen3VLEmbeddingsFilter",
    "Qwen3VLLoader",
    "Qwen3VLReranker",
    "Qwen3VLRetriever",
    "Qwen3VLSplitter",
    "Qwen3VLVectorStore",
    "__version__",
    "aadd_documents",
    "add_documents",
    "content_blocks",
    "create_retriever_tool",
    "describe_document",
    "from_langchain",
    "to_langchain",
]


def __getattr__(name: str) -> Any:
    """Import what needs other packages on first use.

    Older versions of langchain-text-splitters import torch, and langchain-qdrant may not be installed.
    """
    if name == "Bm25Embeddings":
        from langchain_qwen3_vl.sparse import Bm25Embeddings

        return Bm25Embeddings
    if name == "Qwen3VLSplitter":
        from langchain_qwen3_vl.splitter import Qwen3VLSplitter

        return Qwen3VLSplitter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

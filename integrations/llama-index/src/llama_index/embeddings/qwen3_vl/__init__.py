"""Qwen3-VL-Embedding for LlamaIndex. Importing it loads neither torch nor a model."""

from llama_index.embeddings.qwen3_vl.base import Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.nodes import document_of_node, node_of_document

from qwen3vl.adapters.media_keys import MediaKeys

__all__ = ["MediaKeys", "Qwen3VLEmbedding", "document_of_node", "node_of_document"]

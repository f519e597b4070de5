"""Qwen3-VL-Reranker for LlamaIndex. Importing it loads neither torch nor a model."""

from llama_index.postprocessor.qwen3_vl_rerank.base import Qwen3VLRerank
from llama_index.postprocessor.qwen3_vl_rerank.images import Qwen3VLPictures

__all__ = ["Qwen3VLPictures", "Qwen3VLRerank"]

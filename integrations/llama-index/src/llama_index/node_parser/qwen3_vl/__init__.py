"""A splitter for LlamaIndex that splits texts and keeps nodes with media."""

from llama_index.node_parser.qwen3_vl.base import Qwen3VLSplitter

__all__ = ["Qwen3VLSplitter"]

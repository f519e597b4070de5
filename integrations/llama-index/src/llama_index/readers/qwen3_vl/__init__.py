"""Folders to LlamaIndex's nodes."""

from llama_index.readers.qwen3_vl.base import Qwen3VLReader

__all__ = ["Qwen3VLReader"]

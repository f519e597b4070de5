"""A reader for LlamaIndex: files and folders to nodes that keep their media."""

from llama_index.readers.qwen3_vl.base import Qwen3VLReader

__all__ = ["Qwen3VLReader"]

"""Backends that ask servers for vectors and scores. Importing them needs neither torch nor a tokenizer.

`RemoteEmbedder` and `RemoteReranker` take a call's items in chunks (`chunks`), several of which are under way at once.
The items of a chunk are encoded (`items`, `contents`), put into requests (`requests`, `groups`), and the answers are
decoded (`answers`). `transport` sends requests: over connections that all threads and event loops share, again after
failures, to the server that has the least to do (`servers`).
"""

from qwen3vl.client.embedder import RemoteEmbedder
from qwen3vl.client.reranker import RemoteReranker

__all__ = ["RemoteEmbedder", "RemoteReranker"]

"""Backends that ask vLLM's servers. Importing them needs a tokenizer, and no torch.

vLLM takes token ids, so prompts of texts are exactly ours. It takes images and videos only in chat messages, which it
renders with the checkpoint's chat template: `prompts` makes messages that are rendered to our ids, and refuses what
would not be; `media` encodes pixels that were sized here. `probe` asks a server, when it is connected, whether this
holds for it. `requests` sends the prompts, and compares the number of tokens in each answer with ours.
"""

from qwen3vl.vllm.embedder import VllmEmbedder
from qwen3vl.vllm.reranker import VllmReranker

__all__ = ["VllmEmbedder", "VllmReranker"]

"""How much runs at a time, by the memory that is free."""

from __future__ import annotations

import threading

import torch

from qwen3vl.model import ModelConfig

MOST_TOKENS = 16384
"""Of a pack: enough to keep an H100 busy; more would only take memory."""
LEAST_TOKENS = 1024
CPU_TOKENS = 4096
RECOVERY = 64
"""Packs that fit, after a budget was made smaller, until a larger one is tried again."""
SHARE = 0.6
"""Of the free memory of a GPU that a pack's activations may take; the rest is for kernels' own and for others."""


def vision_bytes(device: torch.device) -> int:
    """What is kept of encoded pictures unless a caller says: 1 GiB, or an eighth of a smaller GPU's free memory."""
    return min(1 << 30, _free(device) // 8) if device.type == "cuda" else 1 << 28


def token_budget(config: ModelConfig, device: torch.device, dtype: torch.dtype, kept: int) -> int:
    """Tokens of a pack whose activations fit the memory that is free now, but for what is `kept`, were all pictures."""
    if device.type != "cuda":
        return CPU_TOKENS
    room = int((_free(device) - kept) * SHARE)
    return min(MOST_TOKENS, max(LEAST_TOKENS, room // token_bytes(config, dtype)))


def _free(device: torch.device) -> int:
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


class Budget:
    """Tokens of a pack: what was chosen, or less for a while after memory ran out.  For any number of threads."""

    def __init__(self, most: int) -> None:
        self.tokens = most
        self._most = most
        self._fitted = 0
        self._lock = threading.Lock()

    def shrink(self, tokens: int) -> None:
        """A pack of so many tokens did not fit."""
        with self._lock:
            self.tokens = min(self.tokens, max(tokens // 2, min(LEAST_TOKENS, self._most)))
            self._fitted = 0

    def fitted(self, tokens: int) -> None:
        """A pack did; after RECOVERY full ones, larger ones are tried."""
        with self._lock:
            self._fitted += tokens >= self.tokens // 2
            if self.tokens < self._most and self._fitted >= RECOVERY:
                self.tokens = min(self.tokens * 2, self._most)
                self._fitted = 0


def token_bytes(config: ModelConfig, dtype: torch.dtype) -> int:
    """Bytes that are alive at once for each token, at most: in an MLP, or in the vision tower's four patches."""
    text, vision = config.text, config.vision
    heads = (text.num_heads + 2 * text.num_kv_heads) * text.head_dim
    language = 4 * text.hidden_size + 3 * text.intermediate_size + 3 * heads
    patch = 4 * vision.hidden_size + 2 * vision.intermediate_size + 9 * vision.hidden_size
    seen = (1 + len(vision.deepstack_visual_indexes)) * vision.out_hidden_size
    pixels = 3 * vision.spatial_merge_size**2 * vision.patch_dim
    return (language + seen + vision.spatial_merge_size**2 * patch) * dtype.itemsize + pixels * torch.float32.itemsize

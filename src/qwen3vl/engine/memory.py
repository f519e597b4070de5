"""Token budgets of forward passes and sizes of caches, chosen by free device memory."""

from __future__ import annotations

import torch

from qwen3vl.concurrency.fork_safety import ForkSafeLock
from qwen3vl.model import ModelConfig

MAX_GPU_TOKENS = 16384
"""Maximum tokens of a batch on a GPU. This many keep an H100 busy; more would only use more memory."""
MIN_TOKENS = 1024
"""Tokens of a batch that are tried however little memory is free."""
CPU_TOKENS = 4096
"""Maximum tokens of a batch on a CPU or Apple's GPU."""
RECOVERY_BATCHES = 64
"""Successful full batches, after the budget shrank, until a larger one is tried."""
ACTIVATION_FRACTION = 0.6
"""Fraction of a GPU's free memory, less the cache, for a batch's activations. The rest is for kernels' workspaces and
other users."""
MAX_CACHE_BYTES = 1 << 30
"""Maximum default size of the vision feature cache on a GPU: 1 GiB."""
CPU_CACHE_BYTES = 1 << 28
"""Default size of the vision feature cache elsewhere: 256 MiB."""


def default_cache_bytes(device: torch.device) -> int:
    """Choose the size of the vision feature cache where the settings do not name one.

    Args:
        device: The device of the vision tower. On CUDA at most an eighth of its free memory is taken.

    Returns:
        The size in bytes.
    """
    return min(MAX_CACHE_BYTES, _free_bytes(device) // 8) if device.type == "cuda" else CPU_CACHE_BYTES


def token_budget(config: ModelConfig, device: torch.device, dtype: torch.dtype, cache_bytes: int) -> int:
    """Choose the size of batches so that their activations fit a GPU's memory that is free now.

    The memory is computed for the worst case, in which all tokens are vision tokens. Without CUDA, `CPU_TOKENS`.

    Args:
        config: The model's sizes.
        device: The device that runs the batch.
        dtype: The dtype of activations.
        cache_bytes: Bytes to reserve for the vision feature cache.

    Returns:
        The maximum number of tokens of a batch.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    activation_bytes = int((_free_bytes(device) - cache_bytes) * ACTIVATION_FRACTION)
    return min(MAX_GPU_TOKENS, max(MIN_TOKENS, activation_bytes // bytes_per_token(config, dtype)))


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Estimate the peak memory of activations per token.

    The peak is in an MLP of the language model, or in the vision tower, where each token stands for
    `spatial_merge_size ** 2` (four) patches.

    Args:
        config: The model's sizes.
        dtype: The dtype of activations.

    Returns:
        Bytes per token.
    """
    text, vision = config.text, config.vision
    qkv_size = (text.num_heads + 2 * text.num_kv_heads) * text.head_dim
    patches_per_token = vision.spatial_merge_size**2
    # Each factor counts the tensors of that width that are alive at once.
    language = 4 * text.hidden_size + 3 * text.intermediate_size + 3 * qkv_size
    patch = 4 * vision.hidden_size + 2 * vision.intermediate_size + 9 * vision.hidden_size
    features = (1 + len(vision.deepstack_visual_indexes)) * vision.out_hidden_size
    values = language + features + patches_per_token * patch
    pixels = 3 * patches_per_token * vision.patch_dim
    return values * dtype.itemsize + pixels * torch.float32.itemsize


def _free_bytes(device: torch.device) -> int:
    """Return the bytes that can be allocated, including what torch's allocator has cached."""
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


class TokenBudget:
    """The maximum number of tokens of a batch, which shrinks when memory runs out and recovers later.

    Thread-safe.

    Args:
        max_tokens: The budget as long as memory suffices.

    Attributes:
        tokens: The present budget.
    """

    def __init__(self, max_tokens: int) -> None:
        self.tokens = max_tokens
        self._max_tokens = max_tokens
        self._successes = 0
        self._lock = ForkSafeLock()

    def shrink(self, num_tokens: int) -> None:
        """Lower the budget after a batch ran out of memory.

        Args:
            num_tokens: Tokens of the batch. The budget becomes half of it, if that is less than the present one, but
                no less than `MIN_TOKENS`.
        """
        with self._lock:
            self.tokens = min(self.tokens, max(num_tokens // 2, min(MIN_TOKENS, self._max_tokens)))
            self._successes = 0

    def record_success(self, num_tokens: int) -> None:
        """Count a batch that fit; after `RECOVERY_BATCHES` of at least half the budget, double a shrunk budget.

        Args:
            num_tokens: Tokens of the batch.
        """
        with self._lock:
            self._successes += num_tokens >= self.tokens // 2
            if self.tokens < self._max_tokens and self._successes >= RECOVERY_BATCHES:
                self.tokens = min(self.tokens * 2, self._max_tokens)
                self._successes = 0

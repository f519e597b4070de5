"""Token budgets of forward passes and sizes of caches, chosen by free device memory."""

from __future__ import annotations

import torch

from qwen3vl.concurrency.fork_safety import ForkSafeLock
from qwen3vl.engine.static_pass import CAPTURE_SIZES
from qwen3vl.model import ModelConfig
from qwen3vl.model.layers.quantized import WeightFormat

MAX_GPU_TOKENS = 16384
"""Maximum tokens of a batch on a GPU. This many keep an H100 busy; more would only use more memory."""
MIN_TOKENS = 1024
"""Tokens of a batch that are tried however little memory is free."""
CPU_TOKENS = 4096
"""Maximum tokens of a batch on a CPU or Apple's GPU."""
RECOVERY_BATCHES = 64
"""Successful full batches, after the budget shrank, until a larger one is tried."""
ACTIVATION_FRACTION = 0.6
"""Fraction of a GPU's free memory, less what is reserved, for a batch's activations. The rest is for workspaces of
kernels and for other users."""
_INDEX_BYTES = 8 * 8
"""Bytes per token of its id, three positions, and indices of outputs and of vision tokens, all int64."""
MAX_CACHE_BYTES = 1 << 30
"""Maximum default size of the vision feature cache on a GPU: 1 GiB."""
CPU_CACHE_BYTES = 1 << 28
"""Default size of the vision feature cache elsewhere: 256 MiB."""
_GRAPH_OVERHEAD_BYTES = 1 << 27
"""Memory of CUDA graphs besides activations: their kernels' arguments, and workspaces of products. Not measured."""


def default_cache_bytes(device: torch.device) -> int:
    """Choose the size of the vision feature cache where the settings do not name one.

    Args:
        device: The device of the vision tower. On CUDA at most an eighth of its free memory is taken.

    Returns:
        The size in bytes.
    """
    return min(MAX_CACHE_BYTES, _free_bytes(device) // 8) if device.type == "cuda" else CPU_CACHE_BYTES


def token_budget(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    reserved_bytes: int,
    weight_format: WeightFormat | None = None,
) -> int:
    """Choose the size of batches so that their activations fit a GPU's memory that is free now.

    The memory is computed for the worst case, in which all tokens are vision tokens. Without CUDA, `CPU_TOKENS`.

    Args:
        config: The model's sizes.
        device: The device that runs the batch.
        dtype: The dtype of activations.
        reserved_bytes: Bytes to reserve for the vision feature cache and for CUDA graphs.
        weight_format: `"int8"` or `"fp8"` if weights are quantized.

    Returns:
        The maximum number of tokens of a batch.
    """
    if device.type != "cuda":
        return CPU_TOKENS
    activation_bytes = int((_free_bytes(device) - reserved_bytes) * ACTIVATION_FRACTION)
    return min(MAX_GPU_TOKENS, max(MIN_TOKENS, activation_bytes // bytes_per_token(config, dtype, weight_format)))


def bytes_per_token(config: ModelConfig, dtype: torch.dtype, weight_format: WeightFormat | None = None) -> int:
    """Estimate the peak memory of activations per token on a GPU, for a pack of vision tokens: the worst case.

    The vision tower has finished before the language model begins, so the larger of both decides. For the published
    models that is the tower. tests/test_fake_cuda.py compares the estimates with what passes allocate.

    Args:
        config: The model's sizes.
        dtype: The dtype of activations.
        weight_format: `"int8"` or `"fp8"` if weights are quantized.

    Returns:
        Bytes per token.
    """
    return max(
        vision_bytes_per_token(config, dtype, weight_format),
        language_bytes_per_token(config, dtype, weight_format)
        # What the tower returned: tokens, and DeepStack features for the first layers.
        + (1 + len(config.vision.deepstack_visual_indexes)) * config.vision.out_hidden_size * dtype.itemsize,
    )


def graph_bytes(config: ModelConfig, dtype: torch.dtype, weight_format: WeightFormat | None = None) -> int:
    """Estimate the memory of a model's CUDA graphs, which keep the memory of their activations.

    Args:
        config: The model's sizes.
        dtype: The dtype of activations.
        weight_format: `"int8"` or `"fp8"` if weights are quantized.

    Returns:
        Bytes, as if the graphs shared no memory but that for a dense copy of the largest quantized weights.
    """
    activation_bytes = sum(CAPTURE_SIZES) * language_bytes_per_token(config, dtype, weight_format)
    text = config.text
    dense_bytes = 2 * text.hidden_size * text.intermediate_size * dtype.itemsize if weight_format else 0
    return activation_bytes + dense_bytes + _GRAPH_OVERHEAD_BYTES


def vision_bytes_per_token(config: ModelConfig, dtype: torch.dtype, weight_format: WeightFormat | None = None) -> int:
    """Estimate the peak memory of the vision tower per token, which is in the MLP of its last block.

    Args:
        config: The model's sizes.
        dtype: The dtype of activations.
        weight_format: `"int8"` or `"fp8"` if weights are quantized.

    Returns:
        Bytes per token, which stands for `spatial_merge_size ** 2` (four) patches.
    """
    vision = config.vision
    # Per patch: its pixels; the block's input, attention's output, the sum of both, and the norm of that.
    values = vision.patch_dim + 4 * vision.hidden_size
    # The hidden layer before and after GELU; or after it, and quantized.
    hidden_bytes = vision.intermediate_size * dtype.itemsize
    hidden_bytes += max(hidden_bytes, _quantization_bytes(vision.intermediate_size, weight_format))
    # Rotary angles, their cosines and their sines, in float32.
    rotary_bytes = 3 * (vision.hidden_size // vision.num_heads // 2) * torch.float32.itemsize
    patch_bytes = values * dtype.itemsize + hidden_bytes + rotary_bytes
    deepstack_bytes = len(vision.deepstack_visual_indexes) * vision.out_hidden_size * dtype.itemsize
    return vision.spatial_merge_size**2 * patch_bytes + deepstack_bytes + _INDEX_BYTES


def language_bytes_per_token(config: ModelConfig, dtype: torch.dtype, weight_format: WeightFormat | None = None) -> int:
    """Estimate the peak memory of the language model per token, for a pack of texts.

    The peak is in an MLP, or where attention to shared prefixes is merged. The keys that are gathered for shared
    prefixes are not counted; `bytes_per_token` has room for them.

    Args:
        config: The model's sizes.
        dtype: The dtype of activations.
        weight_format: `"int8"` or `"fp8"` if weights are quantized.

    Returns:
        Bytes per token.
    """
    text = config.text
    query_size, kv_size = text.num_heads * text.head_dim, text.num_kv_heads * text.head_dim
    # The layer's input; with dense weights all layers write to it, else the embedding and each step's result stay, too.
    hidden_size = text.hidden_size * (3 if weight_format else 1)
    # Attention's output, the norm, gates and up-projections.
    mlp_values = query_size + text.hidden_size + 2 * text.intermediate_size
    mlp_bytes = mlp_values * dtype.itemsize + _quantization_bytes(text.intermediate_size, weight_format)
    # The product of queries, keys and values; rotated queries and keys; two attentions and their merger, which is
    # computed in float32; two log-sum-exps per head, and three weights made of them.
    attention_values = (query_size + 2 * kv_size) + (query_size + kv_size) + 3 * query_size
    attention_bytes = attention_values * dtype.itemsize + (query_size + 5 * text.num_heads) * torch.float32.itemsize
    rotary_bytes = text.head_dim * dtype.itemsize
    return hidden_size * dtype.itemsize + max(mlp_bytes, attention_bytes) + rotary_bytes + _INDEX_BYTES


def _quantization_bytes(num_values: int, weight_format: WeightFormat | None) -> int:
    """Return the bytes of a row of activations in float32 and in 8 bits, and of its scale, if they are quantized."""
    return num_values * (torch.float32.itemsize + 1) + 2 * torch.float32.itemsize if weight_format == "fp8" else 0


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

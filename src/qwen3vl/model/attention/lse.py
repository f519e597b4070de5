"""Attention together with the log-sum-exps (LSE) of its scores, and the merge of two such results.

Attention to a set of keys is a weighted mean of their values; the log-sum-exp of the scores is the logarithm of the
total weight. From both, attention to the union of two disjoint sets of keys follows exactly: see "attention states" in
FlashInfer (arXiv 2501.01005, section 2.2) and Hydragen (arXiv 2402.05099, section 3.1).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

QUERY_BLOCK_SIZE = 512
"""Number of queries whose scores are in memory at once where torch has no kernel that returns log-sum-exps."""


def attention_with_lse(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Compute attention and the log-sum-exps of its scores, by the best way the device has.

    Args:
        query: (batch_size, num_heads, num_queries, head_dim).
        key: (batch_size, num_kv_heads, num_keys, head_dim), where num_kv_heads divides num_heads.
        value: (batch_size, num_kv_heads, num_keys, head_dim).
        causal: Whether query i attends to keys 0 to i only; then num_queries equals num_keys.

    Returns:
        The attention, (batch_size, num_heads, num_queries, head_dim) in the dtype of `query`, and the log-sum-exps,
        (batch_size, num_heads, num_queries) in float32 or wider.
    """
    if torch.is_grad_enabled():  # torch's kernels have no gradient for the log-sum-exps
        return eager_attention_with_lse(query, key, value, causal=causal)
    if query.device.type == "cpu":
        if query.shape[1] != key.shape[1] and not cpu_kernel_supports_gqa():
            num_groups = query.shape[1] // key.shape[1]
            key, value = (tensor.repeat_interleave(num_groups, dim=1) for tensor in (key, value))
        output, lse = _cpu_flash_attention(query, key, value, causal=causal)
        return output, lse.to(_float32_or_wider(query.dtype))
    return blockwise_attention_with_lse(query, key, value, causal=causal)


def blockwise_attention_with_lse(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Compute `eager_attention_with_lse` for `QUERY_BLOCK_SIZE` queries at a time.

    The scores of all queries of a long segment at once would take more memory than the rest of the forward pass.

    Args:
        query: (batch_size, num_heads, num_queries, head_dim).
        key: (batch_size, num_kv_heads, num_keys, head_dim).
        value: (batch_size, num_kv_heads, num_keys, head_dim).
        causal: Whether query i attends to keys 0 to i only; then num_queries equals num_keys.

    Returns:
        As `attention_with_lse`.
    """
    outputs, lses = [], []
    for start in range(0, query.shape[2], QUERY_BLOCK_SIZE):
        queries = query[:, :, start : start + QUERY_BLOCK_SIZE]
        num_keys = start + queries.shape[2] if causal else key.shape[2]
        output, lse = eager_attention_with_lse(queries, key[:, :, :num_keys], value[:, :, :num_keys], causal=causal)
        outputs.append(output)
        lses.append(lse)
    return torch.cat(outputs, dim=2), torch.cat(lses, dim=2)


def eager_attention_with_lse(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Compute attention and log-sum-exps by plain tensor operations, which have gradients.

    Args:
        query: (batch_size, num_heads, num_queries, head_dim).
        key: (batch_size, num_kv_heads, num_keys, head_dim).
        value: (batch_size, num_kv_heads, num_keys, head_dim).
        causal: Whether the queries are those of the last num_queries keys, and attend to no later key than their own.

    Returns:
        As `attention_with_lse`.
    """
    batch_size, num_heads, num_queries, head_dim = query.shape
    grouped_query = query.reshape(batch_size, key.shape[1], -1, head_dim)
    scores = (grouped_query @ key.transpose(-1, -2)).to(_float32_or_wider(query.dtype)) * head_dim**-0.5
    if causal:
        key_indices = torch.arange(key.shape[2], device=query.device)
        masked = key_indices > key_indices[key.shape[2] - num_queries :, None]
        scores = scores.unflatten(2, (-1, num_queries)).masked_fill(masked, -torch.inf).flatten(2, 3)
    lse = scores.logsumexp(-1, keepdim=True)
    output = (scores - lse).exp().to(value.dtype) @ value
    return output.reshape(batch_size, num_heads, num_queries, head_dim), lse.reshape(batch_size, num_heads, num_queries)


def merge_attention_states(output_a: Tensor, lse_a: Tensor, output_b: Tensor, lse_b: Tensor) -> tuple[Tensor, Tensor]:
    """Merge attention to two disjoint sets of keys into attention to their union.

    Args:
        output_a: Attention to the first set, (num_tokens, num_heads, head_dim).
        lse_a: Its log-sum-exps, (num_tokens, num_heads).
        output_b: Attention to the second set, (num_tokens, num_heads, head_dim).
        lse_b: Its log-sum-exps, (num_tokens, num_heads).

    Returns:
        The merged attention, (num_tokens, num_heads, head_dim) in the dtype of `output_a`, and its log-sum-exps,
        (num_tokens, num_heads).
    """
    return merge_attention_outputs(output_a, lse_a, output_b, lse_b), torch.logaddexp(lse_a, lse_b)


def merge_attention_outputs(output_a: Tensor, lse_a: Tensor, output_b: Tensor, lse_b: Tensor) -> Tensor:
    """Compute the merged attention of `merge_attention_states` only.

    With w = sigmoid(lse_b - lse_a), the share of the second set in the total weight, the merged output is
    (1 - w) * output_a + w * output_b (FlashInfer, arXiv 2501.01005, section 2.2). In 16 bits it is computed in float32,
    with one tensor in float32 at a time.

    Args:
        output_a: Attention to the first set, (num_tokens, num_heads, head_dim).
        lse_a: Its log-sum-exps, (num_tokens, num_heads).
        output_b: Attention to the second set, (num_tokens, num_heads, head_dim).
        lse_b: Its log-sum-exps, (num_tokens, num_heads).

    Returns:
        (num_tokens, num_heads, head_dim), in the dtype of `output_a`.
    """
    weight_b = torch.sigmoid(lse_b - lse_a).unsqueeze(-1)
    if output_a.dtype == weight_b.dtype:
        return torch.lerp(output_a, output_b, weight_b)
    return (output_b * weight_b).addcmul_(output_a, 1 - weight_b).to(output_a.dtype)


@cache
def cpu_kernel_supports_gqa() -> bool:
    """Return whether torch's CPU kernel accepts fewer key heads than query heads; before torch 2.9 it misreads them."""
    query, shared_memory = (torch.linspace(-1, 1, heads * 6).view(1, heads, 3, 2) for heads in (4, 8))
    # A kernel that wrongly reads keys of four heads stays within the memory of `shared_memory`.
    key = shared_memory[:, :2]
    output, _ = _cpu_flash_attention(query, key, key, causal=False)
    expected, _ = eager_attention_with_lse(query, key, key, causal=False)
    return bool(torch.allclose(output, expected, atol=1e-5))


def _cpu_flash_attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """Call the CPU kernel behind `scaled_dot_product_attention`, which itself does not return the log-sum-exps."""
    output_and_lse: tuple[Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001
        query, key, value, 0.0, causal
    )
    return output_and_lse


def _float32_or_wider(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)

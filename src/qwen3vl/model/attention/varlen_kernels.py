"""GPU attention kernels for sequences of varying lengths: torch's own or FlashAttention's, checked before use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import lru_cache
from inspect import signature
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from qwen3vl.model.attention.lse import eager_attention_with_lse
from qwen3vl.model.transfer import copy_to_device

log = logging.getLogger(__name__)

VarlenKernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, bool, bool], tuple[Tensor, Tensor | None]]
"""The interface of a kernel: (query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal,
return_lse) -> (attention, log-sum-exps or None).

Queries are (total_q, num_heads, head_dim), keys and values (total_k, num_kv_heads, head_dim); cu_seqlens are
(num_sequences + 1,) int32; log-sum-exps are (total_q, num_heads) float32. The names are FlashAttention's.
"""


def cumulative_seqlens(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Return where each sequence starts, followed by the end of the last, as the kernels expect.

    Args:
        lengths: Number of tokens of each sequence.
        device: The device of the result.

    Returns:
        (num_sequences + 1,) int32.
    """
    return copy_to_device(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


@lru_cache(maxsize=8)
def select_varlen_kernel(device: torch.device, dtype: torch.dtype) -> VarlenKernel | None:
    """Return the first kernel that works on a device. It is chosen once for a device and dtype.

    Args:
        device: A CUDA device.
        dtype: float16 or bfloat16.

    Returns:
        A kernel that passed `check_kernel`; None, with a warning in the log, if none does.

    Raises:
        torch.OutOfMemoryError: The device has no memory left for the check.
    """
    for name, load_kernel in KERNEL_LOADERS.items():
        try:
            kernel = load_kernel()
            check_kernel(kernel, device, dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an old GPU, an old torch, a build without the kernel
            log.info("attention kernel %s does not work on %s: %s", name, device, str(error) or type(error).__name__)
        else:
            return kernel
    log.warning(
        "neither torch.nn.attention.varlen nor flash-attn works on %s: attention takes more calls and memory", device
    )
    return None


CHECKED_SEQLENS = (((1, 2), None), ((200, 100), None), ((1, 1), (5, 300)), ((200, 3), (7, 129)))
"""Lengths of the query sequences that `check_kernel` tries, and of the key sequences if they differ."""


def check_kernel(
    kernel: VarlenKernel,
    device: torch.device,
    dtype: torch.dtype,
    checked_seqlens: Sequence[tuple[Sequence[int], Sequence[int] | None]] = CHECKED_SEQLENS,
    max_seqlen: int = 0,
) -> None:
    """Compare a kernel with `eager_attention_with_lse`, for short and long sequences and three head sizes.

    If the attention or the log-sum-exps differ, an AssertionError says by how much.

    Args:
        kernel: The kernel.
        device: The device to run it on.
        dtype: The dtype of queries, keys and values.
        checked_seqlens: Lengths of sequences to try, as in `CHECKED_SEQLENS`.
        max_seqlen: Passed as the length of the longest sequence, if it is more than that.
    """
    generator = torch.Generator().manual_seed(0)
    for head_dim in (64, 72, 128):
        for seqlens_q, other_seqlens_k in checked_seqlens:
            seqlens_k = other_seqlens_k or seqlens_q
            query = torch.randn(sum(seqlens_q), 4, head_dim, generator=generator).to(device, dtype)
            key, value = (
                torch.randn(sum(seqlens_k), 2, head_dim, generator=generator).to(device, dtype) for _ in range(2)
            )
            cu_seqlens_q = cumulative_seqlens(seqlens_q, device)
            cu_seqlens_k = cumulative_seqlens(seqlens_k, device) if other_seqlens_k else cu_seqlens_q
            max_seqlen_q, max_seqlen_k = max(max_seqlen, *seqlens_q), max(max_seqlen, *seqlens_k)
            for causal in (False,) if other_seqlens_k else (True, False):
                output, lse = kernel(
                    query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, True
                )
                assert lse is not None  # noqa: S101 (the call asks for it)
                query_start = key_start = 0
                for seqlen_q, seqlen_k in zip(seqlens_q, seqlens_k, strict=True):
                    if not seqlen_q:
                        continue
                    queries = slice(query_start, query_start + seqlen_q)
                    keys = slice(key_start, key_start + seqlen_k)
                    q, k, v = (
                        tensor[rows].transpose(0, 1)[None].float().cpu()
                        for tensor, rows in ((query, queries), (key, keys), (value, keys))
                    )
                    expected_output, expected_lse = eager_attention_with_lse(q, k, v, causal=causal)
                    for actual, expected in ((output, expected_output), (lse, expected_lse)):
                        torch.testing.assert_close(
                            actual[queries].float().cpu(), expected[0].transpose(0, 1), atol=0.03, rtol=0.03
                        )
                    query_start, key_start = queries.stop, keys.stop


def load_torch_kernel() -> VarlenKernel:
    """Load torch's varlen attention (torch 2.10 and newer); an older torch causes an ImportError.

    Returns:
        The kernel.
    """
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    # Keywords differ between torch releases. Those without `enable_gqa` always accept grouped queries.
    parameters = signature(varlen_attn).parameters

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        causal: bool,
        return_lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        keywords: dict[str, Any] = {"is_causal": causal}
        if "window_size" in parameters:
            # A window as wide as the longest sequence changes nothing, but cuDNN, which torch prefers for attention
            # without a window, does not accept one, so that FlashAttention is used. cuDNN would build and keep a graph
            # for every new shape, and packed batches rarely repeat a shape.
            window = max(max_seqlen_q, max_seqlen_k)
            keywords = {"window_size": (window, 0 if causal else window)}
        if "enable_gqa" in parameters:
            keywords["enable_gqa"] = query.shape[1] != key.shape[1]
        result = varlen_attn(
            query,
            key,
            value,
            cu_seqlens_q,
            cu_seqlens_k,
            max_seqlen_q,
            max_seqlen_k,
            return_aux=AuxRequest(lse=return_lse),
            **keywords,
        )
        if isinstance(result, Tensor):
            return result, None
        return result[0], result[1].t()

    return kernel


def load_flash_attn_kernel() -> VarlenKernel:
    """Load the varlen kernel of flash-attn (arXiv 2205.14135, 2307.08691), which causes an ImportError without it.

    Returns:
        The kernel.
    """
    from flash_attn import flash_attn_varlen_func

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        causal: bool,
        return_lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        result = flash_attn_varlen_func(
            query,
            key,
            value,
            cu_seqlens_q,
            cu_seqlens_k,
            max_seqlen_q,
            max_seqlen_k,
            causal=causal,
            return_attn_probs=return_lse,
        )
        return (result[0], result[1].t()) if return_lse else (result, None)

    return kernel


KERNEL_LOADERS: dict[str, Callable[[], VarlenKernel]] = {
    "torch.nn.attention.varlen": load_torch_kernel,
    "flash-attn": load_flash_attn_kernel,
}
"""The kernels that `select_varlen_kernel` tries, in this order, by the name of their package."""

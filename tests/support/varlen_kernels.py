"""What a GPU's attention kernels for sequences of varying lengths compute, in plain torch on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def reference_kernel(
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
    """Sequence by sequence; the lengths of the longest must be exact."""
    outputs, sums = [], []
    key, value = (heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1) for heads in (key, value))
    assert max_seqlen_q == int(cu_seqlens_q.diff().max())
    assert max_seqlen_k == int(cu_seqlens_k.diff().max())
    for q_start, q_stop, k_start, k_stop in zip(
        cu_seqlens_q, cu_seqlens_q[1:], cu_seqlens_k, cu_seqlens_k[1:], strict=False
    ):
        scores = torch.einsum("qhd,khd->hqk", query[q_start:q_stop], key[k_start:k_stop]) * query.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[1:], dtype=torch.bool).tril(), -torch.inf)
        outputs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[k_start:k_stop]))
        sums.append(scores.logsumexp(-1).T)
    return torch.cat(outputs), torch.cat(sums) if return_lse else None


def masked_kernel(
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
    """All sequences at once, with a mask: as on a GPU, no value is read on the host, and sequences may be empty."""
    key, value = (heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1) for heads in (key, value))
    query_rows, key_rows = (torch.arange(len(heads), dtype=torch.int32) for heads in (query, key))
    query_sequences = torch.searchsorted(cu_seqlens_q, query_rows, right=True)
    key_sequences = torch.searchsorted(cu_seqlens_k, key_rows, right=True)
    visible = query_sequences[:, None] == key_sequences
    if causal:
        visible &= query_rows[:, None] >= key_rows
    scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
    scores = scores.masked_fill(~visible, -torch.inf)
    output = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
    return output, scores.logsumexp(-1).T if return_lse else None

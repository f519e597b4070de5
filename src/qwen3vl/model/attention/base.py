"""What the implementations of attention over a packed row have in common."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class AttentionFunction(Protocol):
    """Attention over the rows of one layout, with grouped-query heads (GQA, Ainslie et al. 2023, arXiv 2305.13245).

    The scale of the scores is head_dim ** -0.5.
    """

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute attention.

        Args:
            query: (num_tokens, num_heads, head_dim).
            key: (num_tokens, num_kv_heads, head_dim), where num_kv_heads divides num_heads.
            value: (num_tokens, num_kv_heads, head_dim).

        Returns:
            (num_tokens, num_heads, head_dim), in the dtype of `query`.
        """
        ...

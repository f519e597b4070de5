"""Attention over a packed row by calls of torch's own kernels, on every device and with gradients."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from qwen3vl.model.attention.batching import batch_segments
from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink
from qwen3vl.model.attention.lse import attention_with_lse, merge_attention_states


class BatchedAttention:
    """Attention by one call for each batch of segments, and one for each link.

    Adjacent segments of equal length share a call as a batch. Links with few keys become part of the batches (see
    `batch_segments`); every other link is a call of its own.

    Args:
        layout: The layout of the packed row.
        device: The device of queries, keys and values.
        causal: Whether a token attends only to itself and to earlier tokens of its segment.
    """

    def __init__(self, layout: AttentionLayout, device: torch.device, *, causal: bool) -> None:
        self.causal = causal
        self.segment_batches, self.links = batch_segments(layout, device)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Compute attention; see `AttentionFunction`.

        Args:
            query: (num_tokens, num_heads, head_dim).
            key: (num_tokens, num_kv_heads, head_dim).
            value: (num_tokens, num_kv_heads, head_dim).

        Returns:
            (num_tokens, num_heads, head_dim).
        """
        outputs, lses = [], []
        for batch in self.segment_batches:
            q, k, v = (batch.gather(tensor) for tensor in (query, key, value))
            if self.links:
                batch_output, batch_lse = attention_with_lse(q, k, v, causal=self.causal)
                lses.append(batch.drop_replicated(batch_lse))
            else:
                num_groups = q.shape[1] // k.shape[1]
                if num_groups > 1 and q.device.type == "cuda":
                    # Of torch's kernels for CUDA, the memory-efficient one takes no grouped heads. It would be replaced
                    # by one whose memory grows with the square of the length.
                    k, v = (tensor.repeat_interleave(num_groups, dim=1) for tensor in (k, v))
                batch_output = scaled_dot_product_attention(
                    q, k, v, is_causal=self.causal, enable_gqa=q.shape[1] != k.shape[1]
                )
            outputs.append(batch.drop_replicated(batch_output))
        output = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
        if not self.links:
            return output
        lse = torch.cat(lses)
        merge_links = _merge_links_with_gradients if torch.is_grad_enabled() else _merge_links
        return merge_links(output, lse, ((link, *_attend_to_link(link, query, key, value)) for link in self.links))


def _attend_to_link(link: PrefixLink, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return attention of a link's query rows to its keys, and its log-sum-exps."""
    queries, keys = slice(link.query_start, link.query_stop), slice(link.key_start, link.key_stop)
    q, k, v = (tensor.unsqueeze(0).transpose(1, 2) for tensor in (query[queries], key[keys], value[keys]))
    output, lse = attention_with_lse(q, k, v, causal=False)
    return output[0].transpose(0, 1), lse[0].transpose(0, 1)


def _merge_links(output: Tensor, lse: Tensor, attended: Iterable[tuple[PrefixLink, Tensor, Tensor]]) -> Tensor:
    """Merge attention to the keys of links into their query rows, in place.

    Args:
        output: (num_tokens, num_heads, head_dim).
        lse: Its log-sum-exps, (num_tokens, num_heads).
        attended: Each link, attention of its query rows to its keys, and the log-sum-exps of that.

    Returns:
        `output`.
    """
    for link, link_output, link_lse in attended:
        rows = slice(link.query_start, link.query_stop)
        output[rows], lse[rows] = merge_attention_states(output[rows], lse[rows], link_output, link_lse)
    return output


def _merge_links_with_gradients(
    output: Tensor, lse: Tensor, attended: Iterable[tuple[PrefixLink, Tensor, Tensor]]
) -> Tensor:
    """Compute what `_merge_links` does, of rows that were split where links begin and end.

    Autograd would copy all rows for each link that is merged in place.
    """
    links = list(attended)
    bounds = sorted({0, len(output), *(bound for link, *_ in links for bound in (link.query_start, link.query_stop))})
    lengths = [stop - start for start, stop in pairwise(bounds)]
    outputs, lses = (list(torch.split(rows, lengths)) for rows in (output, lse))
    for link, *states in links:
        pieces = range(bounds.index(link.query_start), bounds.index(link.query_stop))
        of_pieces = (torch.split(state, [lengths[piece] for piece in pieces]) for state in states)
        for piece, link_output, link_lse in zip(pieces, *of_pieces, strict=True):
            outputs[piece], lses[piece] = merge_attention_states(outputs[piece], lses[piece], link_output, link_lse)
    return torch.cat(outputs)

"""Attention over a packed row by calls of torch's own kernels, on every device and with gradients."""

from __future__ import annotations

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
        for link in self.links:
            queries, keys = slice(link.query_start, link.query_stop), slice(link.key_start, link.key_stop)
            q, k, v = (tensor.unsqueeze(0).transpose(1, 2) for tensor in (query[queries], key[keys], value[keys]))
            link_output, link_lse = attention_with_lse(q, k, v, causal=False)
            output, lse = _merge_link(output, lse, link, link_output[0].transpose(0, 1), link_lse[0].transpose(0, 1))
        return output


def _merge_link(
    output: Tensor, lse: Tensor, link: PrefixLink, link_output: Tensor, link_lse: Tensor
) -> tuple[Tensor, Tensor]:
    """Merge attention to a link's keys into the link's query rows: in place while gradients are disabled."""
    rows = slice(link.query_start, link.query_stop)
    merged_output, merged_lse = merge_attention_states(output[rows], lse[rows], link_output, link_lse)
    if torch.is_grad_enabled():
        return (
            torch.slice_scatter(output, merged_output, 0, link.query_start, link.query_stop),
            torch.slice_scatter(lse, merged_lse, 0, link.query_start, link.query_stop),
        )
    output[rows], lse[rows] = merged_output, merged_lse
    return output, lse

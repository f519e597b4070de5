"""Attention by the varlen kernels of GPUs: sequences of any lengths in one call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from inspect import signature
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from qwen3vl.model.attention.layout import AttentionLayout, PrefixLink, move
from qwen3vl.model.attention.lse import eager_attention_with_lse, merge_attention_states

log = logging.getLogger(__name__)

KEYS_AT_ONCE = 4
"""Gathered keys of one call, at most, for each token of the row: links may share keys many times over."""

Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, bool, bool], tuple[Tensor, Tensor | None]]
"""(query, key, value, cu_seqlens of the queries' and of the keys' sequences, the most rows of one of each, causal, whether
log-sum-exps are wanted) -> attention, and log-sum-exps (tokens, heads) or None."""


class Varlen:
    """One call for all paths and one for each level of links, whatever their lengths."""

    def __init__(self, layout: AttentionLayout, device: torch.device, kernel: Kernel, *, causal: bool) -> None:
        self.kernel = kernel
        self.causal = causal
        self.max_seqlen = max(layout.lengths)
        self.cu_seqlens = _cu_seqlens(layout.lengths, device)
        self.calls = [
            _Linked(some, device)
            for _, links in groupby(layout.links, key=lambda link: link.level)
            for some in _portions(links, KEYS_AT_ONCE * layout.tokens)
        ]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        max_seqlen, cu_seqlens, linked = self.max_seqlen, self.cu_seqlens, bool(self.calls)
        joined, total = self.kernel(
            query, key, value, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, self.causal, linked
        )
        for call in self.calls:
            out, sums = self.kernel(
                call.rows.take(query),
                call.keys.take(key),
                call.keys.take(value),
                call.cu_seqlens_q,
                call.cu_seqlens_k,
                call.max_seqlen_q,
                call.max_seqlen_k,
                False,
                True,
            )
            assert total is not None and sums is not None  # noqa: S101, PT018 (asked for)
            both, both_sums = merge_attention_states(call.rows.take(joined), call.rows.take(total), out, sums)
            call.rows.put(joined, both)
            call.rows.put(total, both_sums)
        return joined


def _portions(links: Iterable[PrefixLink], most: int) -> list[list[PrefixLink]]:
    """Links of one level in groups of at most `most` keys, or one link."""
    portions: list[list[PrefixLink]] = []
    keys = 0
    for link in links:
        if not portions or keys + link.last - link.first > most:
            portions.append([])
            keys = 0
        portions[-1].append(link)
        keys += link.last - link.first
    return portions


class _Linked:
    """Links that one call serves, with their rows and keys on the device."""

    def __init__(self, links: Sequence[PrefixLink], device: torch.device) -> None:
        rows = [(link.start, link.stop) for link in links]
        keys = [(link.first, link.last) for link in links]
        self.rows, self.keys = _Rows(rows, device), _Rows(keys, device)
        self.cu_seqlens_q = _cu_seqlens([stop - start for start, stop in rows], device)
        self.cu_seqlens_k = _cu_seqlens([stop - start for start, stop in keys], device)
        self.max_seqlen_q = max(stop - start for start, stop in rows)
        self.max_seqlen_k = max(stop - start for start, stop in keys)


class _Rows:
    """Ranges of rows one after the other: a view where they adjoin, gathered where not."""

    def __init__(self, ranges: Sequence[tuple[int, int]], device: torch.device) -> None:
        adjoin = all(one[1] == other[0] for one, other in pairwise(ranges))
        self.slice = slice(ranges[0][0], ranges[-1][1])
        self.index = None if adjoin else move(torch.cat([torch.arange(*each) for each in ranges]), device)

    def take(self, values: Tensor) -> Tensor:
        return values[self.slice] if self.index is None else values[self.index]

    def put(self, values: Tensor, rows: Tensor) -> None:
        if self.index is None:
            values[self.slice] = rows
        else:
            values.index_copy_(0, self.index, rows)


def _cu_seqlens(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where each sequence starts, and the end of the last: (sequences + 1,) int32, as varlen kernels want it."""
    return move(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


@lru_cache(maxsize=8)
def select_varlen_kernel(device: torch.device, dtype: torch.dtype) -> Kernel | None:
    """The first of torch's own varlen attention and FlashAttention that is right on this device, or None."""
    for name, find in (("torch.nn.attention.varlen", _torch_varlen), ("flash-attn", _flash_varlen)):
        try:
            check_kernel(kernel := find(), device, dtype)
            return kernel
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # an old card, an old torch, a build without it
            log.info("no attention by %s on %s: %s", name, device, str(error) or type(error).__name__)
    log.warning(
        "neither torch.nn.attention.varlen nor flash-attn runs on %s: attention takes more calls and memory", device
    )
    return None


PROBES = (((1, 2), None), ((200, 100), None), ((1, 1), (5, 300)), ((200, 3), (7, 129)))
"""Lengths of queries and, where these are others, of keys."""


def check_kernel(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> None:
    """Raises `AssertionError` unless a kernel's attention and log-sum-exps are right, for short and long sequences."""
    generator = torch.Generator().manual_seed(0)
    for width in (64, 72, 128):
        for lengths, others in PROBES:
            seen = others or lengths
            query = torch.randn(sum(lengths), 4, width, generator=generator).to(device, dtype)
            key, value = (torch.randn(sum(seen), 2, width, generator=generator).to(device, dtype) for _ in range(2))
            cu_seqlens = _cu_seqlens(lengths, device)
            cu_seqlens_k = _cu_seqlens(seen, device) if others else cu_seqlens
            for causal in (False,) if others else (True, False):
                found = kernel(query, key, value, cu_seqlens, cu_seqlens_k, max(lengths), max(seen), causal, True)
                place = begin = 0
                for length, count in zip(lengths, seen, strict=True):
                    rows, keys = slice(place, place + length), slice(begin, begin + count)
                    q, k, v = (
                        each[part].transpose(0, 1)[None].float().cpu()
                        for each, part in ((query, rows), (key, keys), (value, keys))
                    )
                    for one, other in zip(found, eager_attention_with_lse(q, k, v, causal=causal), strict=True):
                        assert one is not None  # noqa: S101 (asked for)
                        torch.testing.assert_close(
                            one[rows].float().cpu(), other[0].transpose(0, 1), atol=0.03, rtol=0.03
                        )
                    place, begin = rows.stop, keys.stop


def _torch_varlen() -> Kernel:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    # It has had three signatures; where it has no word for grouped queries, it takes them as they are.
    known = signature(varlen_attn).parameters

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        q: Tensor,
        k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        causal: bool,
        lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        given: dict[str, Any] = {"is_causal": causal}
        if "window_size" in known:
            # As wide as all rows: to FlashAttention that is none.  cuDNN, which would be asked first for none, does not
            # take it; it builds and keeps a graph for every new shape, and packs are hardly ever of one shape.
            wide = max(max_seqlen_q, max_seqlen_k)
            given = {"window_size": (wide, 0 if causal else wide)}
        if "enable_gqa" in known:
            given["enable_gqa"] = query.shape[1] != key.shape[1]
        found = varlen_attn(
            query, key, value, q, k, max_seqlen_q, max_seqlen_k, return_aux=AuxRequest(lse=lse), **given
        )
        if isinstance(found, Tensor):
            return found, None
        return found[0], found[1].T.contiguous()

    return kernel


def _flash_varlen() -> Kernel:
    from flash_attn import flash_attn_varlen_func

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        q: Tensor,
        k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        causal: bool,
        lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        found = flash_attn_varlen_func(
            query, key, value, q, k, max_seqlen_q, max_seqlen_k, causal=causal, return_attn_probs=lse
        )
        return (found[0], found[1].T.contiguous()) if lse else (found, None)

    return kernel

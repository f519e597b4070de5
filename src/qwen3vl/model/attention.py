"""Attention over packed rows: no padding, and what several sequences begin with stands once.

A row of tokens is cut into paths that lie side by side.  Each path attends to itself; a `Link` lets the rows of
paths that branch off another one attend to what that one begins with.  Every link is one softmax over its keys;
the softmaxes of a row are joined by their log-sum-exps, which is exact (as in cascade attention).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from itertools import accumulate, groupby, pairwise
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

log = logging.getLogger(__name__)

KEYS_AT_ONCE = 4
"""Gathered keys of one varlen call, at most, for each token of the row: links may share keys many times over."""


@dataclass(frozen=True, slots=True)
class Link:
    """The rows `start` to `stop` attend to all of the rows `first` to `last`, which stand in front of them.

    `level` counts the links of a row: those of one level have no row in common.
    """

    level: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row is cut: the paths' lengths, side by side from its first token to its last, and their links."""

    lengths: tuple[int, ...]
    links: tuple[Link, ...] = ()

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def attended(self, *, causal: bool) -> int:
        """Pairs of a query and a key that it sees."""
        inside = sum(length * (length + 1) // 2 if causal else length * length for length in self.lengths)
        return inside + sum((link.stop - link.start) * (link.last - link.first) for link in self.links)


class Attend(Protocol):
    """Attention over the rows of one layout.

    `query` is (tokens, heads, head_dim); `key` and `value` are (tokens, kv_heads, head_dim), where kv_heads divides
    heads.  Returns (tokens, heads, head_dim).  The scale is head_dim ** -0.5.
    """

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor: ...


def attention(layout: Layout, device: torch.device, dtype: torch.dtype, *, causal: bool) -> Attend:
    """Attention made ready for a layout on a device; what it needs there is moved once, not in each layer."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16) and (kernel := varlen_kernel(device)):
        return Varlen(layout, device, kernel, causal=causal)
    return Batched(layout, causal=causal)


class Batched:
    """Paths of one length that lie side by side share a call as a batch; each link is a call."""

    def __init__(self, layout: Layout, *, causal: bool) -> None:
        self.layout = layout
        self.causal = causal
        self.runs: list[tuple[int, int]] = [(len(list(alike)), length) for length, alike in groupby(layout.lengths)]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts, weights, start = [], [], 0
        for count, length in self.runs:
            rows, shape = slice(start, start + count * length), (count, length)
            q, k, v = (each[rows].view(*shape, *each.shape[1:]).transpose(1, 2) for each in (query, key, value))
            if self.layout.links:
                out, weight = _softmax(q, k, v, causal=self.causal)
                weights.append(weight.transpose(1, 2).flatten(0, 1))
            else:
                out = scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=q.shape[1] != k.shape[1])
            parts.append(out.transpose(1, 2).flatten(0, 1))
            start = rows.stop
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        if not self.layout.links:
            return joined
        total = torch.cat(weights)
        for link in self.layout.links:
            keys = slice(link.first, link.last)
            q, k, v = (
                each.unsqueeze(0).transpose(1, 2) for each in (query[link.start : link.stop], key[keys], value[keys])
            )
            out, weight = _softmax(q, k, v, causal=False)
            joined, total = _join(joined, total, link, out[0].transpose(0, 1), weight[0].transpose(0, 1))
        return joined


def _softmax(query: Tensor, key: Tensor, value: Tensor, *, causal: bool) -> tuple[Tensor, Tensor]:
    """(batch, heads, tokens, head_dim) each: the attention, and its log-sum-exp (batch, heads, tokens) in float32."""
    if query.device.type == "cpu" and not torch.is_grad_enabled():
        out, weight = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal)  # noqa: SLF001 (torch has no public name for it)
        return out, weight.float()
    # Also where gradients are wanted: torch's own kernels give none for the log-sum-exp.
    batch, heads, tokens, width = query.shape
    grouped = query.reshape(batch, key.shape[1], -1, width)
    scores = (grouped @ key.transpose(-1, -2)).float() * width**-0.5
    if causal:
        hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).triu(1)
        scores = scores.unflatten(2, (-1, tokens)).masked_fill(hidden, -torch.inf).flatten(2, 3)
    weight = scores.logsumexp(-1, keepdim=True)
    out = (scores - weight).exp().to(value.dtype) @ value
    return out.view(batch, heads, tokens, width), weight.view(batch, heads, tokens)


def _join(joined: Tensor, total: Tensor, link: Link, out: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Both softmaxes as the one over all their keys, in the rows of the link."""
    rows = slice(link.start, link.stop)
    both, sums = merge(joined[rows], total[rows], out, weight)
    if torch.is_grad_enabled():
        return (
            torch.slice_scatter(joined, both, 0, link.start, link.stop),
            torch.slice_scatter(total, sums, 0, link.start, link.stop),
        )
    joined[rows], total[rows] = both, sums
    return joined, total


def merge(one: Tensor, one_weight: Tensor, other: Tensor, other_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Attention over two sets of keys from that over each, (tokens, heads, head_dim), and the log-sum-exps."""
    share = torch.sigmoid(other_weight - one_weight).unsqueeze(-1)
    both = torch.lerp(one.float(), other.float(), share).to(one.dtype)
    return both, torch.logaddexp(one_weight, other_weight)


Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, bool, bool], tuple[Tensor, Tensor | None]]
"""(query, key, value, first rows of the queries' and of the keys' sequences with their ends, the longest of both,
causal, whether the log-sum-exp is wanted) -> attention, and log-sum-exp (tokens, heads) or None."""


class Varlen:
    """One call for all paths and one for each level of links, whatever their lengths."""

    def __init__(self, layout: Layout, device: torch.device, kernel: Kernel, *, causal: bool) -> None:
        self.kernel = kernel
        self.causal = causal
        self.longest = max(layout.lengths)
        self.bounds = _bounds(layout.lengths, device)
        self.calls = [
            _Linked(some, device)
            for _, links in groupby(layout.links, key=lambda link: link.level)
            for some in _portions(links, KEYS_AT_ONCE * layout.tokens)
        ]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        longest, bounds = self.longest, self.bounds
        joined, total = self.kernel(query, key, value, bounds, bounds, longest, longest, self.causal, bool(self.calls))
        for call in self.calls:
            out, weight = self.kernel(
                call.rows.take(query),
                call.keys.take(key),
                call.keys.take(value),
                call.row_bounds,
                call.key_bounds,
                call.most_rows,
                call.most_keys,
                False,
                True,
            )
            assert total is not None and weight is not None  # noqa: S101, PT018 (asked for)
            both, sums = merge(call.rows.take(joined), call.rows.take(total), out, weight)
            call.rows.put(joined, both)
            call.rows.put(total, sums)
        return joined


def _portions(links: Iterable[Link], most: int) -> list[list[Link]]:
    """Links of one level in groups of at most `most` keys, or one link."""
    portions: list[list[Link]] = []
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

    def __init__(self, links: Sequence[Link], device: torch.device) -> None:
        rows = [(link.start, link.stop) for link in links]
        keys = [(link.first, link.last) for link in links]
        self.rows, self.keys = _Rows(rows, device), _Rows(keys, device)
        self.row_bounds = _bounds([stop - start for start, stop in rows], device)
        self.key_bounds = _bounds([stop - start for start, stop in keys], device)
        self.most_rows = max(stop - start for start, stop in rows)
        self.most_keys = max(stop - start for start, stop in keys)


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


def _bounds(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Where each sequence starts, and the end of the last: (sequences + 1,) int32, as varlen kernels want it."""
    return move(torch.tensor([0, *accumulate(lengths)], dtype=torch.int32), device)


def move(values: Tensor, device: torch.device) -> Tensor:
    """To the device; through pinned memory where that spares the host a wait."""
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@lru_cache(maxsize=8)
def varlen_kernel(device: torch.device) -> Kernel | None:
    """The first of torch's own varlen attention and FlashAttention that is right on this device, or None."""
    for name, find in (("torch.nn.attention.varlen", _torch_varlen), ("flash-attn", _flash_varlen)):
        try:
            check_kernel(kernel := find(), device, torch.bfloat16)
            return kernel
        except Exception as error:  # an old card, an old torch, a build without it
            log.info("no attention by %s on %s: %s", name, device, str(error) or type(error).__name__)
    log.warning("neither torch.nn.attention.varlen nor flash-attn runs on %s: attention takes more calls", device)
    return None


def check_kernel(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> None:
    """Raises `AssertionError` unless a kernel's attention and log-sum-exps are right, for short and long sequences."""
    generator = torch.Generator().manual_seed(0)
    for lengths in ([1, 2], [200, 100]):
        rows = torch.randn(sum(lengths), 8, 64, generator=generator).to(device, dtype)
        query, key, value = rows[:, :4], rows[:, 4:6], rows[:, 6:]
        bounds = _bounds(lengths, device)
        for causal in (True, False):
            found = kernel(query, key, value, bounds, bounds, max(lengths), max(lengths), causal, True)
            start = 0
            for length in lengths:
                part = slice(start, start := start + length)
                q, k, v = (each[part].transpose(0, 1)[None].float().cpu() for each in (query, key, value))
                expected = _softmax(q, k, v, causal=causal)
                for one, other in zip(found, expected, strict=True):
                    assert one is not None  # noqa: S101 (asked for)
                    torch.testing.assert_close(one[part].float().cpu(), other[0].transpose(0, 1), atol=0.03, rtol=0.03)


def _torch_varlen() -> Kernel:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    known = signature(varlen_attn).parameters
    if "window_size" not in known or "enable_gqa" not in known:
        raise ImportError(f"that of torch {torch.__version__} has no grouped-query attention")

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        q: Tensor,
        k: Tensor,
        most_q: int,
        most_k: int,
        causal: bool,
        lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        given: dict[str, Any] = {
            "window_size": (-1, 0) if causal else (-1, -1),
            "enable_gqa": query.shape[1] != key.shape[1],
        }
        found = varlen_attn(query, key, value, q, k, most_q, most_k, return_aux=AuxRequest(lse=lse), **given)
        if isinstance(found, Tensor):
            return found, None
        out, weight = found
        # (heads, tokens) by its documentation; cuDNN's own order is (tokens, heads, 1).
        return out, weight.squeeze(-1) if weight.ndim == 3 else weight.T.contiguous()

    return kernel


def _flash_varlen() -> Kernel:
    from flash_attn import flash_attn_varlen_func

    def kernel(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        q: Tensor,
        k: Tensor,
        most_q: int,
        most_k: int,
        causal: bool,
        lse: bool,
    ) -> tuple[Tensor, Tensor | None]:
        found = flash_attn_varlen_func(query, key, value, q, k, most_q, most_k, causal=causal, return_attn_probs=lse)
        return (found[0], found[1].T.contiguous()) if lse else (found, None)

    return kernel

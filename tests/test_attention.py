"""Attention over packed rows: every backend gives the same, and kernels are checked before they are used."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.packing import pack_prompts
from qwen3vl.model import AttentionLayout, PrefixLink
from qwen3vl.model.attention import lse
from qwen3vl.model.attention import varlen_kernels as kernels
from qwen3vl.model.attention.batched import BatchedAttention
from qwen3vl.model.attention.batching import batch_segments
from qwen3vl.model.attention.varlen import VarlenAttention
from qwen3vl.model.attention.varlen_kernels import check_kernel
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from tests.support.packed_prompts import UNLIMITED, encode, prompts
from tests.support.varlen_kernels import masked_kernel, reference_kernel

CPU = torch.device("cpu")


@settings(max_examples=60, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=9), st.booleans())
def test_all_backends_give_the_same_attention(drawn: list[EncodedPrompt], multi_head: bool) -> None:
    """Calls batched by length, varlen calls by level, and the differentiable implementation."""
    (pack,) = pack_prompts(drawn, UNLIMITED)
    num_kv_heads = 4 if multi_head else 2
    query, key, value = (torch.randn(pack.num_tokens, heads, 16) for heads in (4, num_kv_heads, num_kv_heads))
    with torch.inference_mode():
        batched = BatchedAttention(pack.layout, CPU, causal=True)(query, key, value)
        varlen = VarlenAttention(pack.layout, CPU, reference_kernel, causal=True)(query, key, value)
    differentiable = BatchedAttention(pack.layout, CPU, causal=True)(query.requires_grad_(), key, value)
    torch.testing.assert_close(varlen, batched, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(differentiable.detach(), batched, atol=1e-5, rtol=1e-5)


def test_short_prefixes_are_replicated_and_long_ones_linked() -> None:
    """A link that serves both kinds of segments stays for those that need it."""
    layout = AttentionLayout((3, 5, 5, 2, 4), (PrefixLink(0, 3, 19, 0, 3), PrefixLink(1, 15, 19, 13, 14)))
    batches, links = batch_segments(layout, CPU)
    assert [(batch.start, batch.num_segments, batch.segment_length, batch.num_replicated) for batch in batches] == [
        (0, 1, 3, 0),
        (3, 2, 5, 3),
        (13, 1, 2, 0),
        (15, 1, 4, 4),
    ]
    assert links == [PrefixLink(0, 13, 15, 0, 3)]
    assert [[] if batch.row_indices is None else batch.row_indices.tolist() for batch in batches] == [
        [],
        [0, 1, 2, *range(3, 8), 0, 1, 2, *range(8, 13)],
        [],
        [0, 1, 2, 13, *range(15, 19)],
    ]
    batches, links = batch_segments(
        AttentionLayout((32, 33, 40, 33), (PrefixLink(0, 32, 105, 0, 32), PrefixLink(1, 105, 138, 0, 33))), CPU
    )
    assert [batch.num_replicated for batch in batches] == [0, 32, 32, 0]
    assert len(links) == 1


def test_kernel_with_another_log_sum_exp_fails_the_check() -> None:
    for kernel in (reference_kernel, masked_kernel):
        check_kernel(kernel, CPU, torch.float32)
    check_kernel(masked_kernel, CPU, torch.float32, [((3, 0, 9, 0, 0), None)], max_seqlen=32)

    def base_two(*args: Any) -> Any:
        output, sums = reference_kernel(*args)
        return output, sums if sums is None else sums / np.log(2)

    with pytest.raises(AssertionError):
        check_kernel(base_two, CPU, torch.float32)


def read_window(signature: str, options: dict[str, Any]) -> tuple[bool, bool]:
    """Remove the window from keyword arguments; return whether it is causal, and whether it is unlimited."""
    if signature == "2.10":
        return bool(options.pop("is_causal")), True
    left, right = options.pop("window_size")
    return right == 0, left >= 300 and right in (0, left)


@pytest.mark.parametrize("signature", ["2.10", "2.11", "2.15"])
def test_every_signature_of_torchs_varlen_attention_is_called_rightly(
    signature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The functions have the signatures of three versions of torch; the kernel behind them is plain torch."""
    calls: list[tuple[bool, bool]] = []

    class Aux(NamedTuple):
        lse: bool = False

    def run(*args: Any, return_aux: Any, **options: Any) -> Any:
        query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k = args
        causal, unlimited = read_window(signature, options)
        calls.append((causal, unlimited or max(max_seqlen_q, max_seqlen_k) < 300))
        grouped = query.shape[1] != key.shape[1]
        assert options.pop("enable_gqa", grouped) == grouped
        assert options == {}
        output, sums = reference_kernel(
            query, key, value, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, causal, True
        )
        assert sums is not None
        return (output, sums.T) if return_aux.lse else output

    def torch_2_10(
        q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, is_causal: bool = False, return_aux: Any = None
    ) -> Any:
        return run(q, k, v, a, b, c, d, is_causal=is_causal, return_aux=return_aux)

    def torch_2_11(
        q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, *, return_aux: Any = None, window_size: Any = 0
    ) -> Any:
        return run(q, k, v, a, b, c, d, window_size=window_size, return_aux=return_aux)

    def torch_2_15(q, k, v, a, b, c, d, *, return_aux=None, window_size=0, enable_gqa=False):
        return run(q, k, v, a, b, c, d, window_size=window_size, enable_gqa=enable_gqa, return_aux=return_aux)

    module = ModuleType("torch.nn.attention.varlen")
    functions: dict[str, Any] = {"2.10": torch_2_10, "2.11": torch_2_11, "2.15": torch_2_15}
    vars(module).update(AuxRequest=Aux, varlen_attn=functions[signature])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kernel = kernels.load_torch_kernel()
    check_kernel(kernel, CPU, torch.float32)
    assert {causal for causal, _ in calls} == {True, False}
    assert all(unlimited for _, unlimited in calls)
    heads = torch.randn(5, 2, 8)
    cu_seqlens = torch.tensor([0, 5], dtype=torch.int32)
    assert kernel(heads, heads, heads, cu_seqlens, cu_seqlens, 5, 5, False, False)[1] is None


def test_kernel_with_wrong_results_is_not_selected(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(query: Any, *_: Any) -> Any:
        return query, query[..., 0]

    def absent() -> Any:
        raise ImportError("no flash-attn here")

    monkeypatch.setattr(kernels, "KERNEL_LOADERS", {"torch": lambda: wrong, "flash-attn": absent})
    kernels.select_varlen_kernel.cache_clear()
    assert kernels.select_varlen_kernel(CPU, torch.float32) is None
    assert "attention takes more calls and memory" in caplog.text
    loaders = {"torch": lambda: wrong, "flash-attn": lambda: reference_kernel}
    monkeypatch.setattr(kernels, "KERNEL_LOADERS", loaders)
    kernels.select_varlen_kernel.cache_clear()
    assert kernels.select_varlen_kernel(CPU, torch.float32) is reference_kernel
    kernels.select_varlen_kernel.cache_clear()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_ways_to_a_log_sum_exp_agree(causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's kernel for CPUs, the same with heads repeated where it cannot group them, eager, and block by block."""
    query, key, value = (torch.randn(2, heads, 37, 8, dtype=dtype) for heads in (4, 2, 2))
    expected = lse.eager_attention_with_lse(query, key, value, causal=causal)
    with torch.inference_mode():
        results = [lse.attention_with_lse(query, key, value, causal=causal)]
        monkeypatch.setattr(lse, "cpu_kernel_supports_gqa", lambda: False)
        results.append(lse.attention_with_lse(query, key, value, causal=causal))
    monkeypatch.setattr(lse, "QUERY_BLOCK_SIZE", 10)
    results.append(lse.blockwise_attention_with_lse(query, key, value, causal=causal))
    for result in results:
        for actual, reference in zip(result, expected, strict=True):
            assert actual.dtype == dtype
            torch.testing.assert_close(actual, reference, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("prefix_length", [2, 6])
def test_gradients_through_shared_prefixes_equal_those_of_single_prompts(prefix_length: int) -> None:
    """The tiny models are trained on packs, too."""
    sequences = [encode([(100, prefix_length), (200 + 10 * number, 3)]) for number in range(3)]
    (pack,) = pack_prompts(sequences, UNLIMITED)
    attention = BatchedAttention(pack.layout, CPU, causal=True)
    assert bool(attention.links) == (prefix_length > 3)
    qkv = [torch.randn(pack.num_tokens, 2, 8, requires_grad=True) for _ in range(3)]
    output_indices = torch.from_numpy(pack.output_indices)
    packed = torch.autograd.grad(attention(*qkv)[output_indices].square().sum(), qkv)
    loss = torch.zeros(())
    for index in pack.prompt_indices:
        token_indices = torch.from_numpy(pack.token_indices(index))
        single = BatchedAttention(AttentionLayout((len(token_indices),)), CPU, causal=True)
        loss = loss + single(*(heads[token_indices] for heads in qkv))[-1].square().sum()
    for actual, expected in zip(packed, torch.autograd.grad(loss, qkv), strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)

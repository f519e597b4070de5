"""Packs of any shape give what each prompt gives alone, and compute nothing twice."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.packing import Pack, plan
from qwen3vl.model import AttentionLayout, PrefixLink, Qwen3VL, read_config
from qwen3vl.model.attention import lse
from qwen3vl.model.attention import varlen_kernels as kernels
from qwen3vl.model.attention.batched import BatchedAttention
from qwen3vl.model.attention.batching import batch_segments
from qwen3vl.model.attention.varlen import VarlenAttention
from qwen3vl.model.attention.varlen_kernels import check_kernel
from qwen3vl.model.weights import load_model
from qwen3vl.processing.encoded_prompt import EncodedPrompt, VisionSpan
from qwen3vl.processing.mrope import mrope_positions

CPU = torch.device("cpu")
GRID = (1, 4, 6)
TOKENS = 6


def prompted(parts: list[tuple[int, int] | str]) -> EncodedPrompt:
    """A prompt of (first id, count) runs and of pictures named by a str."""
    ids: list[int] = []
    spans = []
    for part in parts:
        if isinstance(part, str):
            spans.append(VisionSpan(len(ids), len(ids) + TOKENS, part, GRID))
            ids += [7] * TOKENS
        else:
            ids += range(part[0], part[0] + part[1])
    return EncodedPrompt(np.array(ids, dtype=np.int64), mrope_positions(len(ids), spans), tuple(spans))


runs = st.tuples(st.sampled_from([100, 200, 300]), st.integers(1, 24))
pictures = st.sampled_from(["a", "b"])
prompts = st.lists(st.one_of(runs, pictures), min_size=1, max_size=4).map(lambda parts: [*parts, (400, 1)])


@pytest.fixture(scope="module")
def model(checkpoints: Path) -> Qwen3VL:
    return load_model(checkpoints / "embedding", torch.device("cpu"), torch.float32)


def forward(model: Qwen3VL, pack: Pack) -> dict[int, torch.Tensor]:
    """The last state of each member, with pixels that depend on the picture's name."""
    features = None
    if pack.media:
        rows = [torch.rand((24, 1536), generator=torch.Generator().manual_seed(ord(str(key)))) for key in pack.media]
        features = model.encode_vision(torch.cat(rows), pack.grids).take(torch.from_numpy(pack.vision_feature_indices))
    with torch.inference_mode():
        states = model(
            torch.from_numpy(pack.ids),
            torch.from_numpy(pack.positions),
            pack.layout,
            torch.from_numpy(pack.output_indices),
            torch.from_numpy(pack.vision_token_indices),
            features,
        )
    return dict(zip(pack.members, states, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=7), st.sampled_from([1, 60, 1 << 30]))
def test_packed_equals_alone(model: Qwen3VL, drawn: list[Any], budget: int) -> None:
    sequences = [prompted(parts) for parts in drawn]
    found: dict[int, torch.Tensor] = {}
    for pack in plan(sequences, budget):
        found |= forward(model, pack)
    assert sorted(found) == list(range(len(sequences)))
    for index, sequence in enumerate(sequences):
        (alone,) = plan([sequence], 1 << 30)
        torch.testing.assert_close(found[index], forward(model, alone)[0], atol=2e-5, rtol=1e-4)


def codes(sequence: EncodedPrompt) -> list[Any]:
    """What stands at each place: an id, or a token of a picture."""
    found: list[Any] = sequence.ids.tolist()
    for span in sequence.spans:
        found[span.start : span.stop] = [(span.key, place) for place in range(span.stop - span.start)]
    return found


def distinct(sequences: list[EncodedPrompt]) -> int:
    """Tokens that differ, or that stand behind others: what no engine can do without."""
    prefixes = {tuple(row[:stop]) for row in map(codes, sequences) for stop in range(1, len(row) + 1)}
    return len(prefixes)


@settings(max_examples=300, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=12), st.integers(1, 400))
def test_distinct_tokens_only(drawn: list[Any], budget: int) -> None:
    """Every sequence in one pack, within the budget, and each token behind the same ones once."""
    sequences = [prompted(parts) for parts in drawn]
    packs = list(plan(sequences, budget))
    assert sorted(member for pack in packs for member in pack.members) == list(range(len(sequences)))
    for pack in packs:
        packed = [sequences[member] for member in pack.members]
        assert pack.layout.num_tokens == pack.tokens == distinct(packed)
        assert pack.tokens <= max(budget, *map(len, packed))
        assert all(2**link.level < len(packed) for link in pack.layout.links)
        for member, sequence in zip(pack.members, packed, strict=True):
            places = pack.places(member)
            np.testing.assert_array_equal(pack.ids[places], sequence.ids)
            np.testing.assert_array_equal(pack.positions[:, places], sequence.positions)


@settings(max_examples=100, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=12))
def test_rows_see_what_stands_in_front(drawn: list[Any]) -> None:
    """Path and links together: each token attends to its prompt up to itself, once, and to nothing else."""
    sequences = [prompted(parts) for parts in drawn]
    (pack,) = plan(sequences, 1 << 30)
    seen = np.zeros((pack.tokens, pack.tokens), dtype=int)
    starts = np.cumsum((0, *pack.layout.segment_lengths))
    for start, stop in itertools.pairwise(starts):
        seen[start:stop, start:stop] += np.tri(stop - start, dtype=int)
    for link in pack.layout.links:
        seen[link.query_start : link.query_stop, link.key_start : link.key_stop] += 1
    assert seen.sum() == pack.layout.num_attended_pairs(causal=True)
    for member in pack.members:
        places = pack.places(member)
        expected = np.zeros_like(seen)
        expected[np.ix_(places, places)] = np.tri(len(places), dtype=int)
        np.testing.assert_array_equal(seen[places], expected[places])


def test_a_chain_of_branches_has_few_levels() -> None:
    """Each shares a little more with the next than with the one before: no deeper, and laid without recursion."""
    sequences = [prompted([(100, 10 * number), (1000 + number, 3)]) for number in range(1, 200)]
    (pack,) = plan(sequences, 1 << 30)
    assert {link.level for link in pack.layout.links} == {0}
    assert pack.tokens == distinct(sequences)


def test_shared_tokens_stand_once() -> None:
    system, query = [(100, 40)], [(300, 20)]
    family = [prompted([*system, *query, "a", (1000 + 100 * number, 5)]) for number in range(50)]
    others = [prompted([*system, (2000 + 100 * number, 9)]) for number in range(10)]
    (pack,) = plan(family + others, 1 << 30)
    assert pack.tokens == 40 + (20 + TOKENS) + 50 * 5 + 10 * 9
    assert pack.media == ("a",)
    assert len(pack.vision_token_indices) == TOKENS
    assert len(pack.layout.links) == 2


def test_equal_pads_of_different_pictures_are_not_shared() -> None:
    (pack,) = plan([prompted([(100, 20), name, (200, 3)]) for name in ("a", "b")], 1 << 30)
    assert pack.tokens == 20 + 2 * (TOKENS + 3)
    assert pack.layout == AttentionLayout((20 + TOKENS + 3, TOKENS + 3), (PrefixLink(0, 29, 38, 0, 20),))


def test_equal_prompts_are_one() -> None:
    (pack,) = plan([prompted([(100, 20)])] * 3 + [prompted([(100, 25)])], 1 << 30)
    assert pack.tokens == 25
    assert pack.output_indices.tolist() == [19, 19, 19, 24]


def varlen(
    query: Any, key: Any, value: Any, q: Any, k: Any, max_seqlen_q: int, max_seqlen_k: int, causal: bool, lse: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What a varlen kernel of a GPU does, sequence by sequence, in plain torch."""
    outs, weights = [], []
    key, value = (each.repeat_interleave(query.shape[1] // key.shape[1], dim=1) for each in (key, value))
    assert max_seqlen_q == int(q.diff().max())
    assert max_seqlen_k == int(k.diff().max())
    for first, stop, begin, end in zip(q, q[1:], k, k[1:], strict=False):
        scores = torch.einsum("qhd,khd->hqk", query[first:stop], key[begin:end]) * query.shape[-1] ** -0.5
        if causal:
            scores = scores.masked_fill(~torch.ones(scores.shape[1:], dtype=torch.bool).tril(), -torch.inf)
        outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[begin:end]))
        weights.append(scores.logsumexp(-1).T)
    return torch.cat(outs), torch.cat(weights) if lse else None


@settings(max_examples=60, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=9), st.booleans())
def test_the_kernels_agree(drawn: list[Any], wide: bool) -> None:
    """One call for each length, one for each level, and the differentiable way give the same attention."""
    (pack,) = plan([prompted(parts) for parts in drawn], 1 << 30)
    query, key, value = (torch.randn(pack.tokens, heads, 16) for heads in (4, 4 if wide else 2, 4 if wide else 2))
    with torch.inference_mode():
        batched = BatchedAttention(pack.layout, CPU, causal=True)(query, key, value)
        by_level = VarlenAttention(pack.layout, torch.device("cpu"), varlen, causal=True)(query, key, value)
    trained = BatchedAttention(pack.layout, CPU, causal=True)(query.requires_grad_(), key, value)
    torch.testing.assert_close(by_level, batched, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(trained.detach(), batched, atol=1e-5, rtol=1e-5)


def test_few_keys_are_repeated_and_more_are_linked() -> None:
    """A link that serves both kinds of paths stays for those that need it."""
    layout = AttentionLayout((3, 5, 5, 2, 4), (PrefixLink(0, 3, 19, 0, 3), PrefixLink(1, 15, 19, 13, 14)))
    runs, links = batch_segments(layout, CPU)
    assert [(run.start, run.num_segments, run.segment_length, run.num_replicated) for run in runs] == [
        (0, 1, 3, 0),
        (3, 2, 5, 3),
        (13, 1, 2, 0),
        (15, 1, 4, 4),
    ]
    assert links == [PrefixLink(0, 13, 15, 0, 3)]
    assert [[] if run.row_indices is None else run.row_indices.tolist() for run in runs] == [
        [],
        [0, 1, 2, *range(3, 8), 0, 1, 2, *range(8, 13)],
        [],
        [0, 1, 2, 13, *range(15, 19)],
    ]
    most = batch_segments(
        AttentionLayout((32, 33, 40, 33), (PrefixLink(0, 32, 105, 0, 32), PrefixLink(1, 105, 138, 0, 33))), CPU
    )
    assert [run.num_replicated for run in most[0]] == [0, 32, 32, 0]
    assert len(most[1]) == 1


def test_a_kernel_is_checked() -> None:
    """A varlen kernel whose log-sum-exps mean something else is not taken."""
    check_kernel(varlen, torch.device("cpu"), torch.float32)

    def other_base(*given: Any) -> Any:
        out, weight = varlen(*given)
        return out, weight if weight is None else weight / np.log(2)

    with pytest.raises(AssertionError):
        check_kernel(other_base, torch.device("cpu"), torch.float32)


def window_of(signature: str, given: dict[str, Any]) -> tuple[bool, bool]:
    """Whether keywords ask for causal attention, and for no narrow window, as each signature of torch's reads them."""
    if signature == "2.10":
        return bool(given.pop("is_causal")), True
    left, right = given.pop("window_size")
    return right == 0, left >= 300 and right in (0, left)


@pytest.mark.parametrize("signature", ["2.10", "2.11", "2.15"])
def test_torchs_own_kernel(signature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each signature that torch's varlen attention has had is called rightly; the kernel behind it is plain torch."""
    asked: list[tuple[bool, bool]] = []

    class Aux(NamedTuple):
        lse: bool = False

    def run(*rows: Any, return_aux: Any, **given: Any) -> Any:
        causal, open_ = window_of(signature, given)
        asked.append((causal, open_ or max(rows[5:7]) < 300))
        assert given.pop("enable_gqa", rows[0].shape[1] != rows[1].shape[1]) == (rows[0].shape[1] != rows[1].shape[1])
        assert given == {}
        query, key, value, q, k, max_seqlen_q, max_seqlen_k = rows
        out, sums = varlen(query, key, value, q, k, max_seqlen_q, max_seqlen_k, causal, True)
        assert sums is not None
        return (out, sums.T) if return_aux.lse else out

    def oldest(q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, is_causal: bool = False, return_aux: Any = None):
        return run(q, k, v, a, b, c, d, is_causal=is_causal, return_aux=return_aux)

    def older(q: Any, k: Any, v: Any, a: Any, b: Any, c: int, d: int, *, return_aux: Any = None, window_size: Any = 0):
        return run(q, k, v, a, b, c, d, window_size=window_size, return_aux=return_aux)

    def newest(q, k, v, a, b, c, d, *, return_aux=None, window_size=0, enable_gqa=False):
        return run(q, k, v, a, b, c, d, window_size=window_size, enable_gqa=enable_gqa, return_aux=return_aux)

    module = ModuleType("torch.nn.attention.varlen")
    known: dict[str, Any] = {"2.10": oldest, "2.11": older, "2.15": newest}
    vars(module).update(AuxRequest=Aux, varlen_attn=known[signature])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    check_kernel(kernels.load_torch_kernel(), torch.device("cpu"), torch.float32)
    assert {causal for causal, _ in asked} == {True, False}
    assert all(open_ for _, open_ in asked)
    rows = torch.randn(5, 2, 8)
    cu_seqlens = torch.tensor([0, 5], dtype=torch.int32)
    assert kernels.load_torch_kernel()(rows, rows, rows, cu_seqlens, cu_seqlens, 5, 5, False, False)[1] is None


def test_a_kernel_that_is_wrong_is_not_taken(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def wrong(query: Any, *_: Any) -> Any:
        return query, query[..., 0]

    def absent() -> Any:
        raise ImportError("no flash-attn here")

    monkeypatch.setattr(kernels, "KERNEL_LOADERS", {"torch": lambda: wrong, "flash-attn": absent})
    kernels.select_varlen_kernel.cache_clear()
    assert kernels.select_varlen_kernel(torch.device("cpu"), torch.float32) is None
    assert "attention takes more calls and memory" in caplog.text
    monkeypatch.setattr(kernels, "KERNEL_LOADERS", {"torch": lambda: wrong, "flash-attn": lambda: varlen})
    kernels.select_varlen_kernel.cache_clear()
    assert kernels.select_varlen_kernel(torch.device("cpu"), torch.float32) is varlen
    kernels.select_varlen_kernel.cache_clear()


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softmax_in_blocks(causal: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's kernel for CPUs, with heads repeated where it cannot group them, written out, and block by block."""
    query, key, value = (torch.randn(2, heads, 37, 8, dtype=dtype) for heads in (4, 2, 2))
    expected = lse.eager_attention_with_lse(query, key, value, causal=causal)
    with torch.inference_mode():
        ways = [lse.attention_with_lse(query, key, value, causal=causal)]
        monkeypatch.setattr(lse, "cpu_kernel_supports_gqa", lambda: False)
        ways.append(lse.attention_with_lse(query, key, value, causal=causal))
    monkeypatch.setattr(lse, "QUERY_BLOCK_SIZE", 10)
    ways.append(lse.blockwise_attention_with_lse(query, key, value, causal=causal))
    for way in ways:
        for one, other in zip(way, expected, strict=True):
            assert one.dtype == dtype
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [2, 6])
def test_gradients_flow_through_what_is_shared(shared: int) -> None:
    """As if each prompt had been alone: training packs, too."""
    sequences = [prompted([(100, shared), (200 + 10 * number, 3)]) for number in range(3)]
    (pack,) = plan(sequences, 1 << 30)
    assert bool(BatchedAttention(pack.layout, CPU, causal=True).links) == (shared > 3)
    rows = [torch.randn(pack.tokens, 2, 8, requires_grad=True) for _ in range(3)]
    wanted = torch.from_numpy(pack.output_indices)
    packed = torch.autograd.grad(BatchedAttention(pack.layout, CPU, causal=True)(*rows)[wanted].square().sum(), rows)
    alone = torch.zeros(())
    for member in pack.members:
        places = torch.from_numpy(pack.places(member))
        out = BatchedAttention(AttentionLayout((len(places),)), CPU, causal=True)(*(each[places] for each in rows))
        alone = alone + out[-1].square().sum()
    for one, other in zip(packed, torch.autograd.grad(alone, rows), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_config_reads_both_transformers_spellings(checkpoints: Path, tmp_path: Path) -> None:
    import json

    raw = json.loads((checkpoints / "embedding" / "config.json").read_text())
    rope = raw["text_config"].pop("rope_scaling")
    raw["text_config"]["rope_parameters"] = {**rope, "rope_theta": raw["text_config"].pop("rope_theta")}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path / "config.json") == read_config(checkpoints / "embedding" / "config.json")

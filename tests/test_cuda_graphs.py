"""Small packs run as CUDA graphs give what the ordinary pass gives, and everything else takes that pass.

The graphs are emulated on the CPU: see `tests.support.emulated_graphs`. What a pass does on a GPU is in test_fake_cuda.
"""

from __future__ import annotations

import gc
import itertools
import logging
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from qwen3vl import Embedder
from qwen3vl.engine.cancellation import Cancelled, cancellation_scope, raise_if_cancelled
from qwen3vl.engine.cuda_graphs import GraphCapturer, TextGraphs, _capture_stream, example_prompts
from qwen3vl.engine.memory import graph_bytes, token_budget
from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.static_pass import CAPTURE_SIZES, MAX_PROMPTS, StaticPass, whole_prompts
from qwen3vl.model import Qwen3VL
from qwen3vl.model.layers.fusion import fuse_text_layers
from qwen3vl.model.weights import load_model
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from tests.conftest import CASES
from tests.support.emulated_graphs import CopyingTextGraphs, EmulatedStream, emulated_graphs
from tests.support.packed_prompts import UNLIMITED, encode
from tests.support.varlen_kernels import masked_kernel
from tests.test_golden import check

TEXTS = [name for name, case in CASES["embed"].items() if not {"image", "video"} & case.keys()]


@pytest.fixture(scope="module")
def model(checkpoints: Path) -> Qwen3VL:
    """A model as CUDA devices get it."""
    loaded = load_model(checkpoints / "embedding", torch.device("cpu"), torch.float32)
    fuse_text_layers(loaded.language_model)
    for layer in loaded.language_model.layers:
        layer.register_forward_pre_hook(raise_if_cancelled)
    return loaded


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode(), emulated_graphs():
        yield


def ordinary(model: Qwen3VL, pack: Pack) -> Tensor:
    states: Tensor = model(
        torch.from_numpy(pack.input_ids),
        torch.from_numpy(pack.position_ids),
        pack.layout,
        torch.from_numpy(pack.output_indices),
    )
    return states


def only_pack(prompts: list[EncodedPrompt]) -> Pack:
    (pack,) = pack_prompts(prompts, UNLIMITED)
    return pack


def assert_same_directions(actual: Tensor | None, expected: Tensor) -> None:
    assert actual is not None
    assert torch.cosine_similarity(actual.double(), expected.double()).min() >= 0.99999


def random_pack(random: Random, size: int, num_prompts: int) -> Pack:
    """Return a pack of prompts with as many tokens as need a capture size; some share prefixes, some are equal."""
    num_tokens = random.randint(max(size // 2 + 1, num_prompts), size)
    cuts = [0, *sorted(random.sample(range(1, num_tokens), num_prompts - 1)), num_tokens]
    prompts = []
    for start, stop in itertools.pairwise(cuts):
        num_shared = random.randint(0, stop - start)
        parts = [(100, num_shared), (random.randrange(1000, 9000), stop - start - num_shared)]
        prompts.append(encode([part for part in parts if part[1]]))
    return only_pack(prompts)


@pytest.mark.parametrize("size", CAPTURE_SIZES)
def test_replays_of_all_sizes_equal_the_ordinary_pass(model: Qwen3VL, size: int) -> None:
    random = Random(size)
    graphs = CopyingTextGraphs(GraphCapturer(model))
    num_links = 0
    for num_prompts in [*range(1, MAX_PROMPTS + 1), 1]:
        pack = random_pack(random, size, num_prompts)
        num_links += len(pack.layout.links)
        assert_same_directions(graphs.run(pack), ordinary(model, pack))
    assert num_links
    assert graphs.num_packs == MAX_PROMPTS + 1


_texts = st.lists(st.tuples(st.sampled_from([100, 200, 300]), st.integers(1, 30)), min_size=1, max_size=3).map(
    lambda parts: encode([*parts])
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_texts, min_size=1, max_size=MAX_PROMPTS + 1))
def test_whole_prompts_are_those_that_were_packed(drawn: list[EncodedPrompt]) -> None:
    """Also equal ones, and ones that begin others; a pack has none if they are too many or too long together."""
    pack = only_pack(drawn)
    prompts = whole_prompts(pack)
    num_tokens = sum(len(ids) for ids in {tuple(prompt.ids) for prompt in drawn})
    if len(drawn) > MAX_PROMPTS or num_tokens > CAPTURE_SIZES[-1]:
        assert prompts is None
        return
    assert prompts is not None
    assert prompts.num_tokens == num_tokens == sum(prompts.lengths) <= prompts.capture_size
    starts = dict(zip(np.cumsum(prompts.lengths) - 1, np.cumsum(prompts.lengths) - prompts.lengths, strict=True))
    for index, last in zip(pack.prompt_indices, prompts.output_indices, strict=True):
        row = slice(starts[last], last + 1)
        np.testing.assert_array_equal(prompts.input_ids[row], drawn[index].ids)
        np.testing.assert_array_equal(prompts.position_ids[:, row], drawn[index].positions)


def test_segments_cover_all_rows(model: Qwen3VL) -> None:
    """Kernels write nothing to rows beyond the last segment."""
    static_pass = StaticPass(model, 64, masked_kernel)
    for prompts in example_prompts(static_pass):
        static_pass.load(prompts)
        ends = static_pass._attention.cu_seqlens
        assert (ends.dtype, len(ends)) == (torch.int32, MAX_PROMPTS + 2)
        num_prompts = len(prompts.lengths)
        assert ends[: num_prompts + 1].tolist() == [0, *np.cumsum(prompts.lengths)]
        assert set(ends[num_prompts + 1 :].tolist()) == {64}


def test_packs_with_images_take_the_ordinary_pass() -> None:
    assert whole_prompts(only_pack([encode([(100, 3), "a", (200, 3)])])) is None


def test_sizes_are_captured_once_each_and_share_memory(model: Qwen3VL) -> None:
    captured: list[int] = []
    capturer = GraphCapturer(model)

    def capture(num_tokens: int) -> Any:
        captured.append(num_tokens)
        return capturer(num_tokens)

    graphs = CopyingTextGraphs(capture)
    packs = [only_pack([encode([(first, length)])]) for first in (100, 900) for length in (200, 7, 100, 33)]
    expected = [ordinary(model, pack) for pack in packs]
    for pack, states in zip(packs * 2, expected * 2, strict=True):
        assert_same_directions(graphs.run(pack), states)
    assert captured == [256, 32, 128, 64]
    assert len({id(run.pool) for run in graphs._passes.values()}) == 1  # type: ignore[attr-defined]


def reads_lengths_when_captured() -> Any:
    """Return a kernel that remembers the first lengths which it saw with a number of rows, as a host would."""
    seen: dict[int, Tensor] = {}

    def kernel(query: Any, key: Any, value: Any, cu_seqlens: Any, _: Any, *args: Any) -> Any:
        lengths = seen.setdefault(len(query), cu_seqlens.clone())
        return masked_kernel(query, key, value, lengths, lengths, *args)

    return kernel


def leaks_into_empty_segments(*args: Any) -> Any:
    output, sums = masked_kernel(*args)
    return (output + 1 if (args[3].diff() == 0).any() else output), sums


FAULTS: dict[str, tuple[Any, str]] = {
    "kernel reads lengths on the host": (reads_lengths_when_captured(), "in an ordinary pass"),
    "kernel waits for the device": (
        lambda query, *args: masked_kernel(query * (len(query[query > 0]) > 0), *args),
        "stream is capturing",
    ),
    "kernel fails with empty segments": (leaks_into_empty_segments, "where segments are empty"),
    "no kernel": (None, "none works here"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_graph_that_cannot_be_trusted_is_not_used(
    model: Qwen3VL, fault: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel, message = FAULTS[fault]
    if fault == "kernel reads lengths on the host":  # else found by this check already
        monkeypatch.setattr("qwen3vl.engine.cuda_graphs.check_kernel", lambda *_, **__: None)
    graphs = TextGraphs(GraphCapturer(model))
    pack = only_pack([encode([(100, 20)]), encode([(300, 5)])])
    with emulated_graphs(kernel):
        assert graphs.run(pack) is None
    assert graphs.run(pack) is None  # although it would work now
    assert caplog.text.count("CUDA graphs are not used") == 1
    assert message in caplog.text


def test_later_work_waits_for_that_of_a_capture_that_failed(model: Qwen3VL, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, _ = FAULTS["kernel waits for the device"]
    monkeypatch.setattr("qwen3vl.engine.cuda_graphs.check_kernel", lambda *_, **__: None)
    with emulated_graphs(kernel):
        current, stream = torch.cuda.current_stream(model.device), _capture_stream(model.device)
        with pytest.raises(RuntimeError, match="stream is capturing"):
            GraphCapturer(model)(CAPTURE_SIZES[0])
    assert stream in cast("EmulatedStream", current).waited_for


@pytest.mark.parametrize("change", [lambda states: states * torch.nan, lambda states: states.flip(0)])
def test_graph_with_other_results_than_its_kernels_is_not_used(
    model: Qwen3VL,
    change: Callable[[Tensor], Tensor],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class WrongWhileCaptured(StaticPass):
        def run(self) -> Tensor:
            states = super().run()
            return change(states) if is_in_torch_dispatch_mode() else states

    monkeypatch.setattr("qwen3vl.engine.cuda_graphs.StaticPass", WrongWhileCaptured)
    assert TextGraphs(GraphCapturer(model)).run(only_pack([encode([(100, 20)])])) is None
    assert "gives other results than the model does launched kernel by kernel" in caplog.text


def test_lack_of_memory_leads_to_the_ordinary_pass(caplog: pytest.LogCaptureFixture) -> None:
    def capture(num_tokens: int) -> Any:
        raise torch.OutOfMemoryError(f"no memory for {num_tokens} tokens\nand details")

    assert TextGraphs(capture).run(only_pack([encode([(100, 20)])])) is None
    assert "no memory for 32 tokens" in caplog.text
    assert "details" not in caplog.text


def test_capture_that_is_cancelled_is_tried_again(model: Qwen3VL, caplog: pytest.LogCaptureFixture) -> None:
    graphs = TextGraphs(GraphCapturer(model))
    pack = only_pack([encode([(100, 20)])])
    checks = iter([False] * 10)
    with cancellation_scope(lambda: next(checks, True)), pytest.raises(Cancelled):
        graphs.run(pack)
    assert_same_directions(graphs.run(pack), ordinary(model, pack))
    assert "not used" not in caplog.text


def use_graphs(embedder: Embedder) -> list[CopyingTextGraphs]:
    """Let the replicas of an embedder run emulated graphs."""
    all_graphs = []
    for replica in embedder.engine.replicas:
        graphs = CopyingTextGraphs(GraphCapturer(replica.model))
        replica.text_graphs = graphs
        all_graphs.append(graphs)
    return all_graphs


def test_golden_vectors_by_graphs(checkpoints: Path) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu", cuda_graphs=True)
    (graphs,) = use_graphs(embedder)
    inputs = [CASES["embed"][name] for name in TEXTS]
    for name, case in zip(TEXTS, inputs, strict=True):
        check(name, embedder.embed(case)[0])
    short = [name for name in TEXTS if name != "text-300-words"]
    assert graphs.num_packs == len(short)
    for name, vector in zip(short, embedder.embed([CASES["embed"][name] for name in short]), strict=True):
        check(name, vector)
    assert graphs.num_packs == len(short) + 1
    for name, vector in zip(TEXTS, embedder.embed(inputs), strict=True):
        check(name, vector)
    assert graphs.num_packs == len(short) + 1
    embedder.close()


def test_devices_have_graphs_of_their_own(checkpoints: Path) -> None:
    """Their workers may capture at once. Replicas with graphs share weights with those without."""
    embedder = Embedder(checkpoints / "embedding", device="cpu,cpu", cuda_graphs=True)
    plain = Embedder(checkpoints / "embedding", device="cpu")
    assert plain.engine.model is embedder.engine.model
    assert plain.engine.replicas[0] is not embedder.engine.replicas[0]
    all_graphs = use_graphs(embedder)
    packs = [only_pack([encode([(first, length)])]) for first in (100, 900) for length in (20, 40)]

    def run(replica: Replica) -> list[Tensor]:
        with torch.inference_mode():
            return [replica.execute(pack, {}, {}, use_cache=False).states for pack in packs]

    expected = run(plain.engine.replicas[0])
    with ThreadPoolExecutor(2) as threads:
        for results in threads.map(run, embedder.engine.replicas):
            for states, states_without in zip(results, expected, strict=True):
                assert_same_directions(states, states_without)
    assert [graphs.num_packs for graphs in all_graphs] == [len(packs)] * 2
    for model in (embedder, plain):
        model.close()


def test_close_frees_the_graphs(checkpoints: Path) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu", cuda_graphs=True)
    use_graphs(embedder)
    embedder.embed("a short text")
    (graphs,) = [replica.text_graphs for replica in embedder.engine.replicas]
    assert graphs is not None
    passes = [weakref.ref(run) for run in graphs._passes.values()]
    assert passes
    del graphs
    embedder.close()
    gc.collect()
    assert [reference() for reference in passes] == [None]


def test_replica_without_cuda_has_no_graphs(checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Embedder(checkpoints / "embedding", device="cpu", cuda_graphs=True) as embedder:
        (replica,) = embedder.engine.replicas
        assert replica.load_spec.cuda_graphs
        assert replica.text_graphs is None
    with Embedder(checkpoints / "embedding", device="cpu") as embedder:
        assert not embedder.engine.replicas[0].load_spec.cuda_graphs


def test_token_budget_leaves_room_for_the_graphs(checkpoints: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reserved: list[int] = []

    def noted(config: Any, device: Any, dtype: Any, reserved_bytes: int, weight_format: Any) -> int:
        reserved.append(reserved_bytes)
        return token_budget(config, device, dtype, reserved_bytes, weight_format)

    monkeypatch.setattr("qwen3vl.engine.engine.token_budget", noted)
    for cuda_graphs in (False, True):
        with Embedder(checkpoints / "embedding", device="cpu", cuda_graphs=cuda_graphs, vision_cache=1000) as embedder:
            config = embedder.engine.model.config
    assert reserved == [1000, 1000 + graph_bytes(config, torch.float32)]

"""Forward passes on a fake GPU at the published models' sizes: devices and dtypes, waits, kernels and memory.

No kernel runs: this shows what is asked of a GPU, not what it answers. Kernels' results are tested on CPUs elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.nn.attention import SDPBackend

from qwen3vl.engine.memory import bytes_per_token, language_bytes_per_token
from qwen3vl.engine.packing import Pack
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.timing import DeviceTimestamp
from qwen3vl.model.attention.batched import BatchedAttention
from qwen3vl.model.attention.layout import AttentionLayout
from qwen3vl.model.attention.varlen_kernels import KERNEL_LOADERS
from qwen3vl.model.layers.quantized import WeightFormat
from qwen3vl.processing.templates import PromptContent
from tests.support.fake_cuda import CUDA, NEEDS_DRIVER, DeviceTrace, FakeEvent, HostWaitsError, fake_cuda, read_after
from tests.support.true_sizes import CONFIGS, build_replica, embedding_pack, image, pixels_of, reranking_pack, video

KERNELS = list(KERNEL_LOADERS)
try:
    import torch.nn.attention.varlen
except ImportError:
    KERNELS.remove("torch.nn.attention.varlen")
HAS_FUSED_NORM = hasattr(torch.ops.aten, "_fused_rms_norm")
"""Older torch composes RMSNorm of several kernels."""


def words(count: int, seed: int) -> str:
    return " ".join(str((seed * 7919 + index * 104729) % 9973) for index in range(count))


@cache
def pack_of(name: str) -> Pack:
    """A short query; pages or long texts that fill a pack; and a query with an image for texts, images and a video."""
    if name == "query":
        return embedding_pack([PromptContent(texts=("a red circle on the left of a blue square",))])
    if name == "pages":
        return embedding_pack([PromptContent(images=(image(f"page {number}", 1280, 1408),)) for number in range(9)])
    if name == "texts":
        return embedding_pack([PromptContent(texts=(words(400, number),)) for number in range(8)])
    texts = [words(20, number // 4) + words(20, number) for number in range(60)]
    documents = [
        *(PromptContent(texts=(text,)) for text in texts),
        *(PromptContent(images=(image(f"document {number}", 640, 640),)) for number in range(5)),
        PromptContent(videos=(video("clip", 640, 480, 16),)),
    ]
    return reranking_pack(PromptContent(images=(image("query", 1280, 704),)), documents)


def trace(replica: Replica, pack: Pack, *, use_cache: bool = False, with_pixels: bool = True) -> DeviceTrace:
    pixels = pixels_of(pack) if with_pixels else {}
    device_trace = DeviceTrace()
    with device_trace:
        result = replica.execute(pack, pixels, {}, use_cache=use_cache)
    assert result.states.shape == (len(pack.prompt_indices), replica.model.config.text.hidden_size)
    assert (result.states.device.type, result.states.dtype) == ("cpu", torch.bfloat16)
    return device_trace


MODELS: list[tuple[str, WeightFormat | None]] = [("2B", None), ("2B", "fp8"), ("8B", None), ("8B", "fp8")]


@pytest.fixture(params=MODELS, ids=lambda model: "-".join(filter(None, model)))
def replica(request: pytest.FixtureRequest) -> Iterator[Replica]:
    with fake_cuda(KERNELS[0]):
        yield build_replica(*request.param)


@pytest.fixture
def replica_2b() -> Iterator[Replica]:
    with fake_cuda(KERNELS[0]):
        yield build_replica("2B", None)


PACKS = ["query", "pages", "texts", "reranking"]
# Per model, for the packs in this order.
MAX_KERNELS: dict[str, dict[tuple[str, WeightFormat | None], tuple[int, ...]]] = {
    "matmul": {
        ("2B", None): (112, 217, 112, 217),
        ("2B", "fp8"): (112, 217, 112, 217),
        ("8B", None): (144, 261, 144, 261),
        ("8B", "fp8"): (144, 261, 144, 261),
    },
    "attention": {
        ("2B", None): (28, 80, 84, 136),
        ("2B", "fp8"): (28, 80, 84, 136),
        ("8B", None): (36, 99, 108, 171),
        ("8B", "fp8"): (36, 99, 108, 171),
    },
    "norm": {
        ("2B", None): (85, 137, 85, 137),
        ("2B", "fp8"): (85, 137, 85, 137),
        ("8B", None): (109, 167, 109, 167),
        ("8B", "fp8"): (109, 167, 109, 167),
    },
    "elementwise": {
        ("2B", None): (171, 487, 479, 819),
        ("2B", "fp8"): (563, 1263, 871, 1595),
        ("8B", None): (219, 593, 615, 1021),
        ("8B", "fp8"): (723, 1529, 1119, 1957),
    },
    "copy": {
        ("2B", None): (6, 129, 202, 624),
        ("2B", "fp8"): (230, 545, 426, 1040),
        ("8B", None): (6, 148, 258, 787),
        ("8B", "fp8"): (294, 652, 546, 1291),
    },
    "from host": dict.fromkeys(MODELS, (6, 20, 9, 33)),
    "to host": dict.fromkeys(MODELS, (1, 1, 1, 1)),
}
"""Kernels that a pass may launch, by kind. Lower a number when a change saves kernels, so that they stay saved."""


def test_pass_agrees_on_dtypes_never_waits_and_launches_no_more_kernels_than_before(replica: Replica) -> None:
    """Fake tensors of different devices or dtypes fail by themselves, and so does what reads values on the host."""
    kinds = MAX_KERNELS if HAS_FUSED_NORM else ("matmul", "attention", "from host", "to host")
    for number, name in enumerate(PACKS):
        pack = pack_of(name)
        device_trace = trace(replica, pack)
        assert device_trace.waits == []
        assert device_trace.dtypes["matmul"] == device_trace.dtypes["attention"] == {torch.bfloat16}
        limits = {kind: MAX_KERNELS[kind][model_of(replica)][number] for kind in kinds}
        counts = {kind: device_trace.kernels[kind] for kind in kinds}
        assert all(counts[kind] <= limits[kind] for kind in kinds), (name, counts, device_trace.operations)
        check_memory(replica, pack, device_trace, vision=name == "pages", language=name in ("query", "texts"))


def check_memory(replica: Replica, pack: Pack, device_trace: DeviceTrace, *, vision: bool, language: bool) -> None:
    """The budget's estimate is for the worst pack, of vision tokens; it also holds for others, with room to spare."""
    arguments = (replica.model.config, torch.bfloat16, replica.load_spec.weight_format)
    estimate = bytes_per_token(*arguments) * pack.num_tokens
    assert device_trace.peak_bytes <= estimate
    if vision:
        assert estimate <= 1.25 * device_trace.peak_bytes
    if language and HAS_FUSED_NORM:  # a norm of several kernels takes more
        estimate = language_bytes_per_token(*arguments) * pack.num_tokens
        assert device_trace.peak_bytes <= estimate <= 1.25 * device_trace.peak_bytes


def model_of(replica: Replica) -> tuple[str, WeightFormat | None]:
    return "2B" if replica.model.config == CONFIGS["2B"] else "8B", replica.load_spec.weight_format


def test_cached_features_take_the_place_of_the_vision_tower(replica_2b: Replica) -> None:
    replica, pack = replica_2b, pack_of("reranking")
    trace(replica, pack, use_cache=True)
    config = replica.model.config
    num_vision_tokens = len(pack.vision_token_indices)
    feature_size = (1 + len(config.vision.deepstack_visual_indexes)) * config.text.hidden_size
    assert replica.vision_cache.size_bytes == num_vision_tokens * feature_size * 2
    device_trace = trace(replica, pack, use_cache=True, with_pixels=False)
    assert device_trace.kernels["matmul"] == 4 * config.text.num_layers
    assert device_trace.waits == []
    check_memory(replica, pack, device_trace, vision=False, language=False)


@pytest.mark.parametrize("kernel", KERNELS)
def test_calls_of_the_varlen_kernel_fit_its_schema(kernel: str) -> None:
    """Torch checks names and types of arguments; that they ask for the right kernel and mask is checked here."""
    pack = pack_of("reranking")
    with fake_cuda(kernel):
        replica = build_replica("2B", None)
        calls = trace(replica, pack).attention_calls
    num_vision_calls, layers = replica.model.config.vision.depth, replica.model.config.text.num_layers
    assert len(calls) == num_vision_calls + 4 * layers  # three levels of links
    for number, call in enumerate(calls):
        cu_seqlens = {name: value for name, value in call.items() if name.startswith(("cu_seq", "cum_seq"))}
        assert list(cu_seqlens.values()) == [torch.int32] * 2, call
        assert {call["query"], call["key"], call["value"]} == {torch.bfloat16}
        longest = max(call["max_q"], call["max_k"])
        is_causal = number >= num_vision_calls and (number - num_vision_calls) % 4 == 0
        if call.get("window_size") is None:
            assert bool(call.get("is_causal")) == is_causal
            continue
        left, right = call["window_size"]
        assert left >= longest - 1
        assert right == 0 if is_causal else right >= longest - 1
        # cuDNN would be torch's choice for this device, but not with a window.
        assert call["backend"] == SDPBackend.FLASH_ATTENTION.value


READS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda hidden: hidden[0, 0].item(),
    "tolist": lambda hidden: hidden[0].tolist(),
    "condition": lambda hidden: bool((hidden > 0).any()),
    "nonzero": lambda hidden: hidden.nonzero(),
    "mask": lambda hidden: hidden[hidden > 0],
    "wait for the device": lambda _: torch.cuda.synchronize(),
    "value from the host": lambda hidden: hidden + torch.ones(3, 1),
    "dtype": lambda hidden: hidden.float() @ hidden.t(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_planted_read_of_values_fails(replica_2b: Replica, read: Callable[[Tensor], Any]) -> None:
    hook = read_after(replica_2b.model.language_model.layers[3], read)
    try:
        with pytest.raises(
            (DataDependentOutputException, DynamicOutputShapeException, HostWaitsError, RuntimeError)
        ) as error:
            trace(replica_2b, pack_of("query"))
    finally:
        hook.remove()
    assert NEEDS_DRIVER or "driver" not in str(error.value)  # that would fail without fake tensors, too


@pytest.mark.parametrize("copy", [Tensor.cpu, lambda hidden: hidden.to("cpu", non_blocking=True)])
def test_planted_copy_to_the_host_is_seen(replica_2b: Replica, copy: Callable[[Tensor], Any]) -> None:
    hook = read_after(replica_2b.model.language_model.layers[3], copy)
    device_trace = trace(replica_2b, pack_of("query"))
    hook.remove()
    assert device_trace.kernels["to host"] == 2
    assert bool(device_trace.waits) == (copy is Tensor.cpu)


def test_host_sleeps_while_it_waits_for_the_device() -> None:
    with fake_cuda(KERNELS[0]):
        event = DeviceTimestamp.now(CUDA).event
    assert isinstance(event, FakeEvent)
    assert event.recorded
    assert event.blocking


def test_attention_by_torch_has_no_grouped_heads_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """With them, torch would choose a kernel whose memory grows with the square of the length, as in float32."""
    shapes: list[tuple[Any, ...]] = []

    def note(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
        shapes.append((query.shape, key.shape, value.shape, options["enable_gqa"]))
        return torch.empty_like(query)

    monkeypatch.setattr("qwen3vl.model.attention.batched.scaled_dot_product_attention", note)
    with fake_cuda(KERNELS[0]):
        attention = BatchedAttention(AttentionLayout((40,)), CUDA, causal=True)
        query, key = (torch.empty(40, heads, 64, device=CUDA) for heads in (16, 8))
        assert attention(query, key, key).shape == query.shape
    assert shapes == [((1, 16, 40, 64),) * 3 + (False,)]

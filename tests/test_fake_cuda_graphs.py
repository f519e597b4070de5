"""What a CUDA graph would hold, on a fake GPU at the published models' sizes: see `tests.support.fake_cuda`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from qwen3vl.engine.cuda_graphs import TextGraphs, example_prompts
from qwen3vl.engine.memory import graph_bytes, language_bytes_per_token
from qwen3vl.engine.replica import Replica
from qwen3vl.engine.static_pass import CAPTURE_SIZES, StaticPass
from qwen3vl.model.attention.prepare import varlen_kernel
from qwen3vl.processing.templates import PromptContent
from tests.support.fake_cuda import CUDA, DeviceTrace, fake_cuda
from tests.support.true_sizes import build_replica, embedding_pack
from tests.test_fake_cuda import HAS_FUSED_NORM, KERNELS


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes every operation with its arguments: of tensors, all but their values."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[Any] = []

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        self.calls.append((operation.name(), tree_map(describe, (args, kwargs, result))))
        return result


def describe(value: Any) -> Any:
    return (tuple(value.shape), value.stride(), value.dtype, value.device) if isinstance(value, Tensor) else value


@pytest.fixture(
    params=[(KERNELS[0], "2B", None), (KERNELS[0], "2B", "fp8"), (KERNELS[-1], "8B", None)],
    ids=lambda param: "-".join(filter(None, param)),
)
def replica(request: pytest.FixtureRequest) -> Iterator[Replica]:
    kernel, *model = request.param
    with fake_cuda(kernel):
        yield build_replica(*model)


def static_pass(replica: Replica, num_tokens: int) -> StaticPass:
    kernel = varlen_kernel(CUDA, torch.bfloat16)
    assert kernel is not None
    return StaticPass(replica.model, num_tokens, kernel)


def test_captured_region_waits_for_nothing_and_has_the_same_shapes_for_all_prompts(replica: Replica) -> None:
    model = replica.model.config, torch.bfloat16, replica.load_spec.weight_format
    assert sum(CAPTURE_SIZES) * language_bytes_per_token(*model) < graph_bytes(*model)
    for size in (CAPTURE_SIZES[0], CAPTURE_SIZES[-1]):
        run = static_pass(replica, size)
        run.run()  # as before a capture: what is kept between passes is created
        calls = []
        for prompts in example_prompts(run):
            loading, noted = DeviceTrace(), Calls()
            with loading:
                run.load(prompts)
            assert (dict(loading.kernels), loading.waits) == ({"from host": 1}, [])
            with noted:
                run.run()
            calls.append(noted.calls)
        assert all(other == calls[0] for other in calls)
        running = DeviceTrace()
        with running:
            run.run()
        assert running.waits == []
        assert not {"from host", "to host"} & running.kernels.keys()
        assert running.kernels["attention"] == replica.model.config.text.num_layers
        if HAS_FUSED_NORM:
            assert running.peak_bytes <= size * language_bytes_per_token(*model)


def test_query_by_a_graph_is_one_copy_from_the_host_and_one_back(replica: Replica) -> None:
    replica.text_graphs = TextGraphs(lambda num_tokens: static_pass(replica, num_tokens))
    for texts in (["a red circle"], ["a red circle on the left of a blue square", "a red circle", "a star"]):
        pack = embedding_pack([PromptContent(texts=(text,)) for text in texts])
        replica.execute(pack, {}, {}, use_cache=False)  # captures
        device_trace = DeviceTrace()
        with device_trace:
            states = replica.execute(pack, {}, {}, use_cache=False).states
        assert states.shape == (len(texts), replica.model.config.text.hidden_size)
        assert (device_trace.kernels["from host"], device_trace.kernels["to host"]) == (1, 1)
        assert device_trace.waits == []

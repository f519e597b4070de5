"""CUDA graphs of the language model, for packs of few tokens: a pass is one launch instead of hundreds.

A short query takes a GPU as long as its kernels take to launch. A CUDA graph is a recorded sequence of kernels with
their arguments, which is launched as a whole. So a graph is needed for each number of tokens, and everything that
changes from pass to pass must be read from memory: see `StaticPass`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from qwen3vl.concurrency.fork_safety import ForkSafeLock
from qwen3vl.engine.cancellation import Cancelled
from qwen3vl.engine.packing import Pack
from qwen3vl.engine.static_pass import CAPTURE_SIZES, MAX_PROMPTS, StaticPass, WholePrompts, whole_prompts
from qwen3vl.model import AttentionLayout, Qwen3VL
from qwen3vl.model.attention.prepare import varlen_kernel
from qwen3vl.model.attention.varlen_kernels import VarlenKernel, check_kernel
from qwen3vl.model.transfer import copy_to_device
from qwen3vl.processing.mrope import mrope_positions

log = logging.getLogger(__name__)

PromptsPass = Callable[[WholePrompts], Tensor]
"""A forward pass over prompts, which returns their final hidden states, (num_prompts, hidden_size)."""

NUM_WARMUPS = 3
"""Passes before a capture: they load, compile and choose kernels, and allocate workspaces, which a capture forbids."""
MIN_COSINE_TO_STATIC = 0.999
"""Least similarity of a graph's states to those of the same kernels launched one by one."""
MIN_COSINE_TO_ORDINARY = 0.95
"""Least similarity to the states of the ordinary pass. Other shapes have other kernels, which round differently: 8-bit
floats most of all (docs/performance.md)."""

_capture_lock = ForkSafeLock()
"""Torch allows one capture at a time in a process."""


class TextGraphs:
    """Runs small packs of texts by graphs, which are captured when they are first needed.

    If a capture fails, none is tried again, and all packs take the ordinary pass.

    Args:
        capture: Returns the pass over rows of a number of tokens, which is one of `CAPTURE_SIZES`.
    """

    def __init__(self, capture: Callable[[int], PromptsPass]) -> None:
        self._capture = capture
        self._passes: dict[int, PromptsPass] = {}
        self._failed = False

    def run(self, pack: Pack) -> Tensor | None:
        """Run a pack, if there is a graph for it. Call this on the thread of the device's worker, in inference mode.

        Args:
            pack: The pack.

        Returns:
            Final hidden states, (num_prompts, hidden_size), in the order of the pack; None if it needs the ordinary
            pass. The next call overwrites them: copies must be queued before.

        Raises:
            Cancelled: The result is not needed any more; see `raise_if_cancelled`.
        """
        prompts = None if self._failed else whole_prompts(pack)
        if prompts is None:
            return None
        run = self._passes.get(prompts.capture_size)
        if run is None:
            try:
                run = self._passes[prompts.capture_size] = self._capture(prompts.capture_size)
            except Cancelled:
                raise
            except Exception as error:  # no kernel that can be captured, wrong results, no memory
                self._failed = True
                self._passes.clear()
                reason = str(error).partition("\n")[0] or type(error).__name__
                log.warning("CUDA graphs are not used; short texts take longer, as without the option: %s", reason)
                return None
        return run(prompts)


class GraphCapturer:
    """Captures a model's graphs, and checks them before they are used.

    Args:
        model: The model, on a CUDA device.
    """

    def __init__(self, model: Qwen3VL) -> None:
        self._model = model
        self._pool: Any = None

    def __call__(self, num_tokens: int) -> PromptsPass:
        """Capture the pass over rows of a number of tokens.

        Args:
            num_tokens: Number of tokens of a row, with padding.

        Returns:
            The pass.

        Raises:
            RuntimeError: Attention has no kernel that can be captured, the capture failed, or memory ran out; or the
                graph gives other results than the ordinary pass.
        """
        static_pass = StaticPass(self._model, num_tokens, self._kernel())
        with _capture_lock:
            captured = CapturedPass(static_pass, self._pool)
        check_pass(captured, static_pass)
        # All graphs run on one stream, and nothing of a pass is read after the next has begun: they may share memory.
        self._pool = captured.pool
        log.info("captured a CUDA graph for %d tokens", num_tokens)
        return captured

    def _kernel(self) -> VarlenKernel:
        """Return the kernel of attention, after a check of what only rows of a fixed size have: empty segments."""
        device, dtype = self._model.device, self._model.dtype
        kernel = varlen_kernel(device, dtype)
        if kernel is None:
            raise RuntimeError("they need an attention kernel for sequences of varying lengths, and none works here")
        try:
            check_kernel(kernel, device, dtype, [((20, 37, 0, 7, 0, 0), None)], max_seqlen=CAPTURE_SIZES[0] * 2)
        except AssertionError as error:
            raise RuntimeError("the attention kernel gives wrong results where segments are empty") from error
        return kernel


class CapturedPass:
    """A static pass as a CUDA graph.

    Args:
        static_pass: The pass.
        pool: The memory pool of another graph, to be shared; None for a new one.
    """

    def __init__(self, static_pass: StaticPass, pool: Any = None) -> None:
        self._static_pass = static_pass
        device = static_pass.model.device
        current, stream = torch.cuda.current_stream(device), _capture_stream(device)
        static_pass.load(example_prompts(static_pass)[0])
        stream.wait_stream(current)
        self._graph = torch.cuda.CUDAGraph()
        # `torch.cuda.graph` enters the stream, too, but does not leave it if a capture cannot be ended.
        try:
            with torch.cuda.stream(stream):
                for _ in range(NUM_WARMUPS):
                    static_pass.run()
                # Other threads of the process may use their devices meanwhile.
                with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    self._states = static_pass.run()
        finally:  # also where it fails: kernels that still run use memory that this stream is given next
            current.wait_stream(stream)

    @property
    def pool(self) -> Any:
        """The graph's memory pool, which further graphs may share."""
        return self._graph.pool()

    def __call__(self, prompts: WholePrompts) -> Tensor:
        """Run the model on prompts: one copy from the host and one launch.

        Args:
            prompts: At most as many tokens as the static pass has.

        Returns:
            Final hidden states, (num_prompts, hidden_size), which the next graph that shares the pool may overwrite.
        """
        self._static_pass.load(prompts)
        self._graph.replay()
        return self._states[: len(prompts.output_indices)]


@cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """Return the stream of a device's captures. There is one, because torch keeps workspaces for each stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def example_prompts(static_pass: StaticPass) -> list[WholePrompts]:
    """Return prompts of random tokens, to capture and to check a pass: one without padding, two, and `MAX_PROMPTS`.

    Args:
        static_pass: The pass.

    Returns:
        Prompts that fill at most a row.
    """
    random = np.random.default_rng(0)
    size, vocab_size = static_pass.num_tokens, static_pass.model.config.text.vocab_size
    return [
        WholePrompts(
            input_ids=random.integers(vocab_size, size=sum(lengths)),
            position_ids=np.concatenate([mrope_positions(length, ()) for length in lengths], axis=1),
            lengths=lengths,
            output_indices=np.cumsum(lengths) - 1,
        )
        for lengths in ((size,), (size // 2, size // 4), (size // MAX_PROMPTS - 1, *[1] * (MAX_PROMPTS - 1)))
    ]


def check_pass(graph: PromptsPass, static_pass: StaticPass) -> None:
    """Compare a graph with the pass that it was captured from, and with the ordinary pass. Waits for the device.

    Args:
        graph: The graph's pass.
        static_pass: The pass that it was captured from.

    Raises:
        RuntimeError: The results differ.
    """
    for prompts in example_prompts(static_pass):
        states = graph(prompts).clone()
        for name, expected, min_cosine in (
            ("launched kernel by kernel", static_pass(prompts), MIN_COSINE_TO_STATIC),
            ("in an ordinary pass", _ordinary_pass(static_pass.model, prompts), MIN_COSINE_TO_ORDINARY),
        ):
            cosine = cosine_similarity(states.double(), expected.double()).min().item()
            if not cosine >= min_cosine:  # also if it is not a number
                raise RuntimeError(
                    f"the graph for {static_pass.num_tokens} tokens gives other results than the model does {name} "
                    f"(cosine {cosine:.4f})"
                )


def _ordinary_pass(model: Qwen3VL, prompts: WholePrompts) -> Tensor:
    input_ids, position_ids, output_indices = (
        copy_to_device(torch.from_numpy(values), model.device)
        for values in (prompts.input_ids, prompts.position_ids, prompts.output_indices)
    )
    states: Tensor = model(input_ids, position_ids, AttentionLayout(prompts.lengths), output_indices)
    return states

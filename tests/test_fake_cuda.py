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

from qwen3vl.engine.memory import MAX_GPU_TOKENS, bytes_per_token, language_bytes_per_token
from qwen3vl.engine.packing import Pack
from qwen3vl.engine.replica import Replica
from qwen3vl.model.attention.varlen_kernels import KERNEL_LOADERS
from qwen3vl.processing.templates import PromptContent
from tests.support.fake_cuda import CUDA, DeviceTrace, fake_cuda, read_after
from tests.support.true_sizes import build_replica, embedding_pack, image, pixels_of, reranking_pack, video

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
    with DeviceTrace() as device_trace:
        result = replica.execute(pack, pixels, {}, use_cache=use_cache)
    assert result.states.shape == (len(pack.prompt_indices), replica.model.config.text.hidden_size)
    assert (result.states.device.type, result.states.dtype) == ("cpu", torch.bfloat16)
    return device_trace

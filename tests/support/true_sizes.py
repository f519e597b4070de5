"""The published models' sizes, and prompts and packs as large as those that a GPU gets."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

import qwen3vl
from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.engine.replica import LoadSpec, Replica
from qwen3vl.engine.worker import DeviceWorker
from qwen3vl.model import ModelConfig, Qwen3VL
from qwen3vl.model.config import TextConfig, VisionConfig
from qwen3vl.model.layers.quantized import WeightFormat, quantize_linears
from qwen3vl.processing.geometry import patch_grid
from qwen3vl.processing.templates import (
    EMBED_INSTRUCTION,
    RERANK_INSTRUCTION,
    PromptContent,
    VisionPart,
    embed_prompt,
    rerank_prompt,
)
from qwen3vl.processing.tokenizer import Tokenizer
from tests.support.fake_cuda import CUDA

TOKENIZER = Path(qwen3vl.__file__).parent / "tiny" / "embedding" / "tokenizer.json"
MAX_LENGTH = 8192
CACHE_BYTES = 1 << 30

CONFIGS = {
    "2B": ModelConfig(
        VisionConfig(24, 1024, 4096, 16, 2048, 3, 16, 2, 2, 2304, (5, 11, 17)),
        TextConfig(151936, 2048, 6144, 28, 16, 8, 128, 1e-6, 5e6, (24, 20, 20), attention_bias=False),
        tie_word_embeddings=True,
    ),
    "8B": ModelConfig(
        VisionConfig(27, 1152, 4304, 16, 4096, 3, 16, 2, 2, 2304, (8, 16, 24)),
        TextConfig(151936, 4096, 12288, 36, 32, 8, 128, 1e-6, 5e6, (24, 20, 20), attention_bias=False),
        tie_word_embeddings=False,
    ),
}


@cache
def load_tokenizer() -> Tokenizer:
    return Tokenizer(TOKENIZER)


def build_replica(size: str, weight_format: WeightFormat | None) -> Replica:
    """Load a replica in bfloat16 whose weights have no values, under `fake_cuda`. Only the reading is replaced."""

    def load_model(
        folder: Path,
        device: torch.device,
        dtype: torch.dtype,
        weight_format: WeightFormat | None,
        adapter: Path | None,
    ) -> Qwen3VL:
        with unset_fake_temporarily(), torch.device("meta"):
            model = Qwen3VL(CONFIGS[size]).to(dtype)
            if weight_format:
                quantize_linears(model, weight_format)
            shapes = model.state_dict()
        weights = {name: torch.empty(like.shape, dtype=like.dtype, device=device) for name, like in shapes.items()}
        model.load_state_dict(weights, assign=True)
        return model.eval().requires_grad_(False)

    load_spec = LoadSpec(TOKENIZER.parent, "", torch.bfloat16, weight_format)
    with mock.patch("qwen3vl.engine.replica.load_model", load_model):
        replica = Replica.load(load_spec, DeviceWorker(CUDA))
    replica.vision_cache.max_bytes = CACHE_BYTES
    return replica


def image(name: str, width: int, height: int) -> VisionPart:
    return VisionPart(name, patch_grid(height, width))


def video(name: str, width: int, height: int, num_frames: int) -> VisionPart:
    grid = patch_grid(height, width, num_frames)
    return VisionPart(name, grid, tuple(float(second) for second in range(grid[0])))


def embedding_pack(contents: Sequence[PromptContent[VisionPart]], max_tokens: int = 16384) -> Pack:
    """Return the pack of embedding prompts, which must fit into one."""
    tokenizer = load_tokenizer()
    prompts = [
        tokenizer.encode_prompt(embed_prompt(content, EMBED_INSTRUCTION), MAX_LENGTH).prompt for content in contents
    ]
    (pack,) = pack_prompts(prompts, max_tokens)
    return pack


def reranking_pack(
    query: PromptContent[VisionPart], documents: Sequence[PromptContent[VisionPart]], max_tokens: int = 16384
) -> Pack:
    """Return the pack of one query's prompts, which must fit into one."""
    tokenizer = load_tokenizer()
    prompts = [
        tokenizer.encode_prompt(rerank_prompt(query, document, RERANK_INSTRUCTION), MAX_LENGTH).prompt
        for document in documents
    ]
    (pack,) = pack_prompts(prompts, max_tokens)
    return pack


def pixels_of(pack: Pack) -> dict[Hashable, Tensor]:
    """Return pixels without values for all media of a pack; an image has one frame."""
    return {
        key: torch.empty((1 if grid[0] == 1 else 2 * grid[0], grid[1] * 16, grid[2] * 16, 3), dtype=torch.uint8)
        for key, grid in zip(pack.media_keys, pack.grids, strict=True)
    }

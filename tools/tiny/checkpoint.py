"""Configuration, tokenizer and files of the tiny models, in the layout of the published checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import nn

from qwen3vl.demo.scenes import random_clip, random_scene
from qwen3vl.model import Qwen3VL, read_config
from qwen3vl.processing.templates import EMBED_INSTRUCTION, RERANK_INSTRUCTION, RERANK_SYSTEM

CONTROL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)
NOT_SPECIAL = frozenset(CONTROL_TOKENS[14:])
"""Control tokens that decoding does not skip."""
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer splits text before it merges bytes (`tokenizer.json` of the published checkpoints)."""
VOCABULARY_SIZE = 544


def model_config(*, num_layers: int, token_ids: dict[str, int | None]) -> dict[str, object]:
    """Return the content of `config.json`.

    Args:
        num_layers: Number of layers of the language model.
        token_ids: Ids of the control tokens.

    Returns:
        A configuration in the layout of the published checkpoints.
    """
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": token_ids["<|image_pad|>"],
        "video_token_id": token_ids["<|video_pad|>"],
        "vision_start_token_id": token_ids["<|vision_start|>"],
        "vision_end_token_id": token_ids["<|vision_end|>"],
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": VOCABULARY_SIZE,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": num_layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 5000000,
            "rope_scaling": {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"},
            "attention_bias": False,
            "attention_dropout": 0.0,
            "bos_token_id": token_ids["<|endoftext|>"],
            "eos_token_id": token_ids["<|im_end|>"],
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "depth": 4,
            "hidden_size": 96,
            "intermediate_size": 288,
            "num_heads": 3,
            "in_channels": 3,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [1, 2],
            "hidden_act": "gelu_pytorch_tanh",
        },
    }


def build_tokenizer(*, append_endoftext: bool) -> Tokenizer:
    """Train a byte-level BPE on captions and prompt templates, with Qwen's pre-tokenizer and control tokens.

    Args:
        append_endoftext: Whether each text ends with `<|endoftext|>`, as in the embedding checkpoints.

    Returns:
        The tokenizer, the same on each call.
    """
    tokenizer = Tokenizer(BPE(fuse_unk=False, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    random = Random(20261122)
    captions = [random_scene(random).caption(random.randrange(3)) for _ in range(3000)]
    captions += [random_clip(random).caption(random.randrange(2)) for _ in range(1500)]
    templates = [f"system\n{EMBED_INSTRUCTION}", f"system\n{RERANK_SYSTEM}", "user\n", "assistant\n", "yes", "no"]
    templates += [f"<Instruct>: {RERANK_INSTRUCTION}<Query>:", "\n<Document>:", "<0.6 seconds>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE - len(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions + templates * 400, trainer)
    tokenizer.add_tokens(
        [AddedToken(text, special=text not in NOT_SPECIAL, normalized=False) for text in CONTROL_TOKENS]
    )
    byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.post_processor = byte_level
    if append_endoftext:
        end_id = tokenizer.token_to_id("<|endoftext|>")
        append_end = processors.TemplateProcessing(
            single="$A <|endoftext|>",
            pair="$A <|endoftext|> $B <|endoftext|>",
            special_tokens=[("<|endoftext|>", end_id)],
        )
        tokenizer.post_processor = processors.Sequence([byte_level, append_end])
    return tokenizer


def write_config_files(folder: Path, *, num_layers: int, append_endoftext: bool) -> None:
    """Write all files of a checkpoint but the weights.

    Args:
        folder: The checkpoint's folder; created if missing.
        num_layers: Number of layers of the language model.
        append_endoftext: Whether the tokenizer ends each text with `<|endoftext|>`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(append_endoftext=append_endoftext)
    tokenizer.save(str(folder / "tokenizer.json"))
    token_ids = {name: tokenizer.token_to_id(name) for name in CONTROL_TOKENS}
    processor = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "processor_class": "Qwen3VLProcessor",
    }
    files: dict[str, object] = {
        "config.json": model_config(num_layers=num_layers, token_ids=token_ids),
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2TokenizerFast",
            "model_max_length": 32768,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config.json": {
            **processor,
            "size": {"shortest_edge": 4096, "longest_edge": 1310720},
            "image_processor_type": "Qwen2VLImageProcessorFast",
        },
        "video_preprocessor_config.json": {
            **processor,
            "size": {"shortest_edge": 4096, "longest_edge": 25165824},
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def new_model(folder: Path, seed: int) -> Qwen3VL:
    """Build a model with random weights.

    Args:
        folder: A folder with `config.json`.
        seed: Seed of the weights.

    Returns:
        A model whose matrices are normal with standard deviation fan_in**-0.5, halved where they write to the residual
        stream. Embeddings have smaller ones, and biases are zero.
    """
    torch.manual_seed(seed)
    model = Qwen3VL(read_config(folder / "config.json"))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            std = 0.02 if "embed_tokens" in name else 0.3 if "pos_embed" in name else fan_in**-0.5
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.linear_fc2.weight")):
                std *= 0.5
            nn.init.normal_(parameter, std=std)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def save_weights(model: Qwen3VL, folder: Path) -> None:
    """Write `model.safetensors` in bfloat16, under the names of the published checkpoints.

    Args:
        model: The model.
        folder: The checkpoint's folder.
    """
    weights = {f"model.{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    _write(weights, folder)


def average_checkpoints(folder: Path, sources: Sequence[Path]) -> None:
    """Write a checkpoint whose weights are the mean of those of others (model soups: arXiv 2203.05482, section 2).

    Args:
        folder: The new checkpoint's folder.
        sources: Checkpoints of which each was trained on from the one before. The other files are those of the last.
    """
    weights = [load_file(source / "model.safetensors") for source in sources]
    mean = {
        name: torch.stack([each[name].float() for each in weights]).mean(0).to(weights[-1][name].dtype)
        for name in weights[-1]
    }
    shutil.copytree(sources[-1], folder, dirs_exist_ok=True)
    _write(mean, folder)


def _write(weights: dict[str, torch.Tensor], folder: Path) -> None:
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

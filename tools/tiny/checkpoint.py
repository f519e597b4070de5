"""The tiny pair's configuration, vocabulary and files, in the layout of the published checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import nn

from qwen3vl.demo.scenes import random_clip, random_scene
from qwen3vl.model import Qwen3VL, read_config
from qwen3vl.processing.templates import EMBED_INSTRUCTION, RERANK_INSTRUCTION, RERANK_SYSTEM

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>"),
)
NOT_SPECIAL = set(SPECIAL[14:])
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen's tokenizer cuts text before merging bytes."""
VOCABULARY = 544


def config(*, layers: int, vocabulary: int, control: dict[str, int | None]) -> dict[str, object]:
    """`config.json` of a tiny model."""
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "image_token_id": control["<|image_pad|>"],
        "video_token_id": control["<|video_pad|>"],
        "vision_start_token_id": control["<|vision_start|>"],
        "vision_end_token_id": control["<|vision_end|>"],
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": vocabulary,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": layers,
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
            "bos_token_id": control["<|endoftext|>"],
            "eos_token_id": control["<|im_end|>"],
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
    """A byte-level BPE over captions and the two frames, with Qwen's pre-tokeniser and control tokens."""
    made = Tokenizer(BPE(fuse_unk=False, byte_fallback=False))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    random = Random(20261122)
    captions = [random_scene(random).caption(random.randrange(3)) for _ in range(3000)]
    captions += [random_clip(random).caption(random.randrange(2)) for _ in range(1500)]
    frames = [f"system\n{EMBED_INSTRUCTION}", f"system\n{RERANK_SYSTEM}", "user\n", "assistant\n", "yes", "no"]
    frames += [f"<Instruct>: {RERANK_INSTRUCTION}<Query>:", "\n<Document>:", "<0.6 seconds>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(captions + frames * 400, trainer)
    made.add_tokens([AddedToken(text, special=text not in NOT_SPECIAL, normalized=False) for text in SPECIAL])
    byte_level = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    made.post_processor = byte_level
    if append_endoftext:
        end = made.token_to_id("<|endoftext|>")
        ending = processors.TemplateProcessing(
            single="$A <|endoftext|>",
            pair="$A <|endoftext|> $B <|endoftext|>",
            special_tokens=[("<|endoftext|>", end)],
        )
        made.post_processor = processors.Sequence([byte_level, ending])
    return made


def prepare(folder: Path, *, layers: int, append_endoftext: bool) -> Path:
    """Writes everything but the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(append_endoftext=append_endoftext)
    tokenizer.save(str(folder / "tokenizer.json"))
    control = {name: tokenizer.token_to_id(name) for name in SPECIAL}
    pixels = {
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "processor_class": "Qwen3VLProcessor",
    }
    files: dict[str, object] = {
        "config.json": config(layers=layers, vocabulary=VOCABULARY, control=control),
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2TokenizerFast",
            "model_max_length": 32768,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config.json": {
            **pixels,
            "size": {"shortest_edge": 4096, "longest_edge": 1310720},
            "image_processor_type": "Qwen2VLImageProcessorFast",
        },
        "video_preprocessor_config.json": {
            **pixels,
            "size": {"shortest_edge": 4096, "longest_edge": 25165824},
            "video_processor_type": "Qwen3VLVideoProcessor",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return folder


def new_model(folder: Path, seed: int) -> Qwen3VL:
    """A model of the folder's shape with fresh weights: normal(0, 0.02), residual outputs scaled by depth."""
    torch.manual_seed(seed)
    model = Qwen3VL(read_config(folder / "config.json"))
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            fan_in = parameter[0].numel()
            scale = 0.02 if "embed_tokens" in name else 0.3 if "pos_embed" in name else fan_in**-0.5
            if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "mlp.linear_fc2.weight")):
                scale *= 0.5
            nn.init.normal_(parameter, std=scale)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model


def save(model: Qwen3VL, folder: Path) -> None:
    """Writes bfloat16 weights under the published names."""
    weights = {f"model.{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

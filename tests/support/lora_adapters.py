"""LoRA adapters: those that peft makes and merges, and such that are written here for models of any size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qwen3vl.model.weights import empty_model

TEXT_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VISION_LAYERS = ["attn.qkv", "attn.proj", "linear_fc1", "linear_fc2"]


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """An adapter, and the checkpoint that peft merges it into.

    Attributes:
        folder: The adapter.
        merged: The merged checkpoint.
    """

    folder: Path
    merged: Path


def train(base: Path, out: Path, *, auto_model: bool = False, **config: Any) -> TrainedAdapter:
    """Make an adapter whose weights are drawn from a seed, save it with peft, and merge it with peft.

    Args:
        base: The checkpoint.
        out: A folder for both.
        auto_model: Whether the adapter is trained on `AutoModel`, as sentence-transformers does, in place of
            `Qwen3VLForConditionalGeneration`.
        **config: Arguments of peft's `LoraConfig`.

    Returns:
        The folders.
    """
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load(base, auto_model=auto_model), LoraConfig(**{"r": 4, "lora_alpha": 8, **config}))
    draw(model)
    model.save_pretrained(out / "adapter")
    merged = model.merge_and_unload()
    merged.save_pretrained(out / "merged")
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(base / name, out / "merged" / name)
    return TrainedAdapter(out / "adapter", out / "merged")


def load(folder: Path, *, auto_model: bool = False) -> nn.Module:
    """Load a checkpoint with transformers, in float32."""
    from transformers import Qwen3VLForConditionalGeneration

    model: nn.Module = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    if auto_model:
        # The class of `AutoModel`, which itself does not find the names of these weights in transformers 4.57.
        model = model.get_submodule("model")
    return model.eval()


def draw(model: nn.Module) -> None:
    """Change all parameters that peft trains, as training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad or "lora_" in name:
                noise = torch.randn(parameter.shape, generator=generator)
                if "lora_magnitude" in name or "lora_" not in name:
                    parameter.mul_(1 + 0.1 * noise).add_(0.01 * noise)
                else:
                    parameter.copy_(noise * (0.5 / parameter.shape[-1] ** 0.5 if parameter.dim() > 1 else 0.1))


def rewrite(folder: Path, out: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """Copy an adapter with other tensors.

    Args:
        folder: The adapter.
        out: The folder to write.
        change: Returns the new tensors, by key.

    Returns:
        `out`.
    """
    shutil.copytree(folder, out)
    file = out / "adapter_model.safetensors"
    tensors = change(load_file(folder / file.name))
    file.unlink()
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, file, metadata={"format": "pt"})
    return out


def write_adapter(base: Path, out: Path, *, seed: int = 0) -> Path:
    """Write an adapter of the language model's query and value projections, without peft.

    Args:
        base: The checkpoint.
        out: The folder to write.
        seed: Seed of its weights.

    Returns:
        `out`.
    """
    generator = torch.Generator().manual_seed(seed)
    rank, tensors = 4, {}
    for name, weight in empty_model(base).state_dict().items():
        if name.endswith(("q_proj.weight", "v_proj.weight")):
            layer = f"base_model.model.model.{name.removesuffix('.weight')}"
            rows, columns = weight.shape
            tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / columns**0.5
            tensors[f"{layer}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) / rank**0.5
    out.mkdir()
    save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": ["q_proj", "v_proj"]}
    (out / "adapter_config.json").write_text(json.dumps(config))
    return out

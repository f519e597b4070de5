"""What a LoRA adapter does to each tensor of a model: `read_updates` finds it, `WeightUpdate.apply` does it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from qwen3vl.errors import ModelError
from qwen3vl.model.lora.config import LoraConfig, read_lora_config

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
"""Files that peft saves an adapter's tensors in; the first that exists is read."""
_KEY = re.compile(
    r"base_model\.model\.(?P<layer>.+?)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_embedding_A"
    r"|lora_embedding_B|lora_magnitude_vector|(?:base_layer\.)?(?P<parameter>weight|bias))"
)
_SAVED_MODULE = re.compile(r"\.modules_to_save\.[^.]+(?=\.)")
"""With `bias="all"`, peft also saves biases of modules that were trained as a whole under the names in its wrapper."""
_ORIGINAL_MODULE = ".original_module."
"""The base model's part of that wrapper."""
_EXPECTED_KEYS = (
    "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight (trained as "
    "Qwen3VLForConditionalGeneration), base_model.model.language_model.layers.… (AutoModel), "
    "base_model.model.model.layers.… (the language model alone), and the same with visual.…"
)


@dataclass(frozen=True, slots=True, eq=False)
class WeightUpdate:
    """A change of one tensor. The fields that are not None are applied from the first to the last.

    Attributes:
        replacement: New values (a module or bias that was trained as a whole).
        offset: Added values, of the tensor's shape.
        up: (rows, rank). `scale * up @ down` is added to the tensor, flattened to (rows, columns).
        down: (rank, columns).
        scale: See `up`; also a factor of `offset`.
        magnitude: Lengths that the rows are scaled to afterwards, (rows,); those of the columns if `by_column`.
        by_column: See `magnitude`; peft transposes embeddings.
    """

    replacement: Tensor | None = None
    offset: Tensor | None = None
    up: Tensor | None = None
    down: Tensor | None = None
    scale: float = 1.0
    magnitude: Tensor | None = None
    by_column: bool = False

    def apply(self, tensor: Tensor) -> Tensor:
        """Return the changed tensor.

        Args:
            tensor: The base model's tensor, which is not written to. It may be mapped to a file.

        Returns:
            A float32 tensor of the same shape.
        """
        source = tensor if self.replacement is None else self.replacement
        merged = source.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
        if self.offset is not None:
            merged.add_(self.offset.float(), alpha=self.scale)
        if self.up is not None and self.down is not None:
            rows = merged.flatten(1)
            rows.addmm_(self.up.float(), self.down.float(), alpha=self.scale)
            if self.magnitude is not None:
                dim = 0 if self.by_column else 1
                rows.mul_((self.magnitude.float() / torch.linalg.vector_norm(rows, dim=dim)).unsqueeze(dim))
        return merged

    def of_rows(self, indices: Sequence[int]) -> WeightUpdate:
        """Return the change of some rows of the tensor. The magnitudes must not be those of columns.

        Args:
            indices: The rows.

        Returns:
            The change of a tensor that consists of these rows.
        """
        rows = list(indices)
        return replace(
            self,
            replacement=None if self.replacement is None else self.replacement[rows],
            offset=None if self.offset is None else self.offset[rows],
            up=None if self.up is None else self.up[rows],
            magnitude=None if self.magnitude is None else self.magnitude[rows],
        )


def weights_file(folder: Path) -> Path:
    """Return the file with an adapter's tensors.

    Args:
        folder: The adapter's folder.

    Returns:
        The file.

    Raises:
        ModelError: There is none.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ModelError(f"{folder} has no adapter weights: neither {' nor '.join(WEIGHT_FILES)} exists")


def read_updates(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, WeightUpdate]:
    """Read an adapter.

    Args:
        folder: The adapter's folder, as peft saves it.
        shapes: Shapes of the model's tensors, by the names of `Qwen3VL`, and of `lm_head.weight`.

    Returns:
        The changes, by the names of the tensors. At least one.

    Raises:
        ModelError: The files are damaged or of another kind of adapter, or a tensor does not fit the model.
    """
    config, path = read_lora_config(folder), weights_file(folder)
    parts: dict[str, dict[str, Tensor]] = {}
    unknown: list[str] = []
    tensors = _read_tensors(path)
    for key, tensor in tensors.items():
        if _ORIGINAL_MODULE in key:
            continue
        match = _KEY.fullmatch(_SAVED_MODULE.sub("", key))
        if match is None or not _fits(match, shapes):
            unknown.append(key)
        else:
            parts.setdefault(match["layer"], {})[match["part"]] = tensor
    if unknown or not parts:
        raise ModelError(
            f"{path} does not fit the model: {len(unknown)} of its {len(tensors)} keys belong to no layer of it"
            f"{_first_keys(unknown)}. The expected keys begin like {_EXPECTED_KEYS}"
        )
    updates: dict[str, WeightUpdate] = {}
    for layer, tensors_of_layer in parts.items():
        for parameter in ("weight", "bias"):
            name = f"{_layer_in_model(layer)}.{parameter}"
            try:
                update = _read_update(config, layer, parameter, tensors_of_layer)
                if update is None:
                    continue
                if name in updates:
                    raise ValueError("the layer has keys of two prefixes")
                _check_shapes(update, shapes.get(name))
                updates[name] = update
            except ValueError as error:
                raise ModelError(f"{path}: base_model.model.{layer}: {error}") from error
    return updates


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors raise errors of many classes
        raise ModelError(f"{path} is damaged, or has more than tensors: {error}. Save the adapter again") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise ModelError(f"{path} is no dictionary of tensors; save the adapter again")
    return tensors


def _layer_in_model(layer: str) -> str:
    """Return the name in `Qwen3VL` of a layer of the model that was trained, which may be the language model alone."""
    name = layer.removeprefix("model.")
    return f"language_model.{name}" if name.partition(".")[0] in ("layers", "embed_tokens", "norm") else name


def _fits(match: re.Match[str], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Return whether the model has the tensor that a key is about. That a layer has no bias is reported later."""
    return f"{_layer_in_model(match['layer'])}.{match['parameter'] or 'weight'}" in shapes


def _read_update(config: LoraConfig, layer: str, parameter: str, parts: Mapping[str, Tensor]) -> WeightUpdate | None:
    """Return the change of a layer's weight or bias; None if there is none."""
    replacement = parts.get(parameter, parts.get(f"base_layer.{parameter}"))
    if parameter == "bias":
        offset = parts.get("lora_B.bias")
        if replacement is None and offset is None:
            return None
        return WeightUpdate(replacement, offset, scale=config.scale_of(layer))
    matrices = {name: tensor for name, tensor in parts.items() if name.startswith("lora_") and name != "lora_B.bias"}
    if not matrices:
        return None if replacement is None else WeightUpdate(replacement)
    magnitude = matrices.pop("lora_magnitude_vector", None)
    by_column = "lora_embedding_A" in matrices
    first, second = ("lora_embedding_A", "lora_embedding_B") if by_column else ("lora_A.weight", "lora_B.weight")
    if set(matrices) != {first, second}:
        raise ValueError(f"it has {', '.join(matrices) or 'no matrices'}; a layer has {first} and {second}")
    if (magnitude is not None) != config.decomposed:
        raise ValueError(
            f"use_dora is {str(config.decomposed).lower()}, and lora_magnitude_vector is "
            f"{'missing' if magnitude is None else 'present'}"
        )
    down, up = matrices[first], matrices[second]
    if down.dim() < 2 or up.dim() < 2:
        raise ValueError(
            f"{first} and {second} are no matrices; if it was trained in shards, gather them and save again"
        )
    if by_column:
        down, up = up.t(), down.t()
    rank = config.rank_of(layer)
    if down.shape[0] != rank or up.shape[1] != rank:
        raise ValueError(f"{first} and {second} have rank {down.shape[0]}, and adapter_config.json says {rank}")
    return WeightUpdate(
        replacement,
        up=up.flatten(1),
        down=down.flatten(1),
        scale=config.scale_of(layer),
        magnitude=None if magnitude is None else magnitude.flatten(),
        by_column=by_column,
    )


def _check_shapes(update: WeightUpdate, shape: tuple[int, ...] | None) -> None:
    """Check that a change fits a tensor of the base model, whose shape is None if there is no such tensor."""
    if shape is None:
        raise ValueError("its lora_B has a bias, and the layer has none to merge it into; train it without lora_bias")
    rows, columns = shape[0], math.prod(shape[1:])
    expected = {
        "replacement": (update.replacement, shape),
        "lora_B.bias": (update.offset, shape),
        "lora_B": (update.up, (rows, None)),
        "lora_A": (update.down, (None, columns)),
        "lora_magnitude_vector": (update.magnitude, (columns if update.by_column else rows,)),
    }
    for name, (tensor, wanted) in expected.items():
        if tensor is None:
            continue
        if len(tensor.shape) != len(wanted) or any(
            size not in (None, actual) for size, actual in zip(wanted, tensor.shape, strict=True)
        ):
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)}, and the base model's tensor {shape}: the adapter was trained "
                "on another model; give the one that adapter_config.json names as base_model_name_or_path"
            )


def _first_keys(keys: Iterable[str]) -> str:
    keys = list(keys)
    return f" ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})" if keys else ""

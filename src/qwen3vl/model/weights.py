"""Loading a model's weights from a checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen3vl.errors import ModelError
from qwen3vl.model.config import read_config
from qwen3vl.model.layers.quantized import WeightFormat, quantize_linears, quantize_weight
from qwen3vl.model.qwen3_vl import Qwen3VL

TENSORS_PER_MAPPING = 16
"""Number of tensors for which a file is mapped into memory once. Pages that were read count as the process's memory
until the mapping ends; one mapping of the whole file would add the file's size to the peak of loading."""
LM_HEAD = "lm_head.weight"
"""Name of the output head in a checkpoint that does not tie it to the input embedding."""


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the file of each stored tensor.

    Args:
        folder: A checkpoint folder, with `model.safetensors` or with shards and their index.

    Returns:
        File by tensor name, as stored. Shards are not opened.

    Raises:
        ModelError: Files are missing, or `model.safetensors` or the index of the shards is damaged.
    """
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file():
        try:
            file_names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{index} is damaged: it has no weight_map. Download it again") from error
        missing = sorted({name for name in file_names.values() if not (folder / name).is_file()})
        if missing:
            raise ModelError(f"{folder} is incomplete: it lacks {', '.join(missing)}, which {index.name} lists")
        return {tensor_name: folder / file_name for tensor_name, file_name in file_names.items()}
    if single.is_file():
        with _open_safetensors(single) as file:
            return dict.fromkeys(file.keys(), single)
    raise ModelError(f"{folder} has no weights: neither {single.name} nor {index.name} exists")


def load_model(
    folder: Path, device: torch.device, dtype: torch.dtype, weight_format: WeightFormat | None = None
) -> Qwen3VL:
    """Load a model for inference.

    The model is built on the meta device and its parameters are then replaced by copies of the checkpoint's tensors, so
    that nothing is initialised. An output head in the checkpoint is skipped; see `yes_no_weight`.

    Args:
        folder: A checkpoint folder. Tensor names may have the published prefix `model.` or not.
        device: The device to load to.
        dtype: The dtype of the weights, or of the activations where weights are quantized.
        weight_format: Quantize the linear layers of both towers' blocks to this format while reading them. None keeps
            `dtype`.

    Returns:
        The model, in evaluation mode and without gradients.

    Raises:
        ModelError: Tensors are missing, unexpected or of another shape than config.json says, or a file is damaged.
    """
    with torch.device("meta"):
        model = Qwen3VL(read_config(folder / "config.json"))
    expected_shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    stored = {
        stored_name.removeprefix("model."): (stored_name, path)
        for stored_name, path in weight_files(folder).items()
        if stored_name != LM_HEAD
    }
    _compare_names(folder, expected_shapes, stored)
    quantized_names = quantize_linears(model, weight_format) if weight_format else set()
    weights: dict[str, Tensor] = {}
    for name, tensor in _read_tensors(stored, expected_shapes):
        weight = tensor.to(device=device, dtype=dtype)
        if weight_format and name in quantized_names:
            layer = name.removesuffix("weight")
            quantized_weight, weight_scale = quantize_weight(weight, weight_format)
            weights[f"{layer}quantized_weight"], weights[f"{layer}weight_scale"] = quantized_weight, weight_scale
        else:
            # A tensor that stays mapped to the file would keep the other tensors of its mapping in memory as well.
            weights[name] = weight.clone() if weight is tensor else weight
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def _read_tensors(
    stored: Mapping[str, tuple[str, Path]], expected_shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Tensor]]:
    """Read tensors of a checkpoint.

    Args:
        stored: By name, the name in the file and the file.
        expected_shapes: By name, the shape.

    Yields:
        The name of each tensor and its values, in memory that is mapped to the file.

    Raises:
        ModelError: A tensor has another shape, or a file is damaged.
    """
    names = sorted(stored, key=lambda name: stored[name][1])
    for path, names_of_file in groupby(names, key=lambda name: stored[name][1]):
        while some_names := list(islice(names_of_file, TENSORS_PER_MAPPING)):
            with _open_safetensors(path) as file:
                for name in some_names:
                    tensor = file.get_tensor(stored[name][0])
                    if tuple(tensor.shape) != expected_shapes[name]:
                        raise ModelError(
                            f"{path}: {stored[name][0]} has shape {tuple(tensor.shape)}; config.json asks for "
                            f"{expected_shapes[name]}"
                        )
                    yield name, tensor


def yes_no_weight(folder: Path, model: Qwen3VL, yes_id: int, no_id: int) -> Tensor:
    """Return the difference of the output head's rows for "yes" and "no", which a reranker's score is computed with.

    As `get_binary_linear` of the official `src/models/qwen3_vl_reranker.py`. Only these two rows are read.

    Args:
        folder: The model's checkpoint folder.
        model: The model.
        yes_id: Token id of "yes".
        no_id: Token id of "no".

    Returns:
        (hidden_size,), in the model's dtype and on its device.

    Raises:
        ModelError: The head is neither tied to the input embedding nor stored, so this is not a reranker.
    """
    if model.config.tie_word_embeddings:
        embedding = model.language_model.embed_tokens.weight
        return embedding[yes_id] - embedding[no_id]
    path = weight_files(folder).get(LM_HEAD)
    if path is None:
        raise ModelError(
            f"{folder} has no {LM_HEAD}, and by its config.json the head is not tied to the input embedding: "
            "it is not a reranker"
        )
    with _open_safetensors(path) as file:
        head = file.get_slice(LM_HEAD)
        rows = torch.stack([head[yes_id], head[no_id]]).to(device=model.device, dtype=model.dtype)
    return rows[0] - rows[1]


def _compare_names(folder: Path, expected: Iterable[str], stored: Iterable[str]) -> None:
    missing, unexpected = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    if missing or unexpected:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json: "
            f"{len(missing)} missing{_first_names(missing)}, {len(unexpected)} unexpected{_first_names(unexpected)}"
        )


def _first_names(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


def _open_safetensors(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete: {error}. Download it again") from error

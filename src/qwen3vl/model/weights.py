"""Loading a model's weights from a checkpoint folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen3vl.errors import ModelError
from qwen3vl.model.config import read_config
from qwen3vl.model.layers.quantized import WeightFormat, quantize_linears, quantize_weight
from qwen3vl.model.lora.updates import WeightUpdate, read_updates
from qwen3vl.model.qwen3_vl import Qwen3VL

TENSORS_PER_MAPPING = 16
"""Number of tensors for which a file is mapped into memory once. Pages that were read count as the process's memory
until the mapping ends; one mapping of the whole file would add the file's size to the peak of loading."""
SINGLE_FILE = "model.safetensors"
"""Has all tensors of a checkpoint that is not divided."""
INDEX_FILE = "model.safetensors.index.json"
"""Says which of several files has which tensor."""
LM_HEAD = "lm_head.weight"
"""Name of the output head in a checkpoint that does not tie it to the input embedding."""
EMBEDDING = "language_model.embed_tokens.weight"
"""Name of the input embedding, in `Qwen3VL`."""


def weight_files(folder: Path) -> dict[str, Path]:
    """Return the file of each stored tensor.

    Args:
        folder: A checkpoint folder, with `model.safetensors` or with shards and their index.

    Returns:
        File by tensor name, as stored. Shards are not opened.

    Raises:
        ModelError: Files are missing, or `model.safetensors` or the index of the shards is damaged.
    """
    index = folder / INDEX_FILE
    single = folder / SINGLE_FILE
    if single.is_file():  # as in transformers; a folder that was saved again may still have its former index
        with open_safetensors(single) as file:
            return dict.fromkeys(file.keys(), single)
    if index.is_file():
        try:
            file_names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        except (ValueError, LookupError, TypeError) as error:
            raise ModelError(f"{index} is damaged: it has no weight_map. Download it again") from error
        missing = sorted({name for name in file_names.values() if not (folder / name).is_file()})
        if missing:
            raise ModelError(f"{folder} is incomplete: it lacks {', '.join(missing)}, which {index.name} lists")
        return {tensor_name: folder / file_name for tensor_name, file_name in file_names.items()}
    raise ModelError(f"{folder} has no weights: neither {single.name} nor {index.name} exists")


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    weight_format: WeightFormat | None = None,
    adapter: Path | None = None,
) -> Qwen3VL:
    """Load a model for inference.

    The model is built on the meta device and its parameters are then replaced by copies of the checkpoint's tensors, so
    that nothing is initialised. An output head in the checkpoint is skipped; see `yes_no_weight`. An adapter is merged
    into each tensor as it is read, in float32.

    Args:
        folder: A checkpoint folder. Tensor names may have the published prefix `model.` or not.
        device: The device to load to.
        dtype: The dtype of the weights, or of the activations where weights are quantized.
        weight_format: Quantize the linear layers of both towers' blocks to this format while reading them. None keeps
            `dtype`.
        adapter: Folder of a LoRA adapter.

    Returns:
        The model, in evaluation mode and without gradients.

    Raises:
        ModelError: Tensors are missing, unexpected or of another shape than config.json says, a file is damaged, or
            the adapter does not fit the model.
    """
    model = empty_model(folder)
    expected_shapes = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    stored = {
        stored_name.removeprefix("model."): (stored_name, path)
        for stored_name, path in weight_files(folder).items()
        if stored_name != LM_HEAD
    }
    check_names(folder, expected_shapes, stored)
    updates = {} if adapter is None else updates_of(adapter, model)
    quantized_names = quantize_linears(model, weight_format) if weight_format else set()
    weights: dict[str, Tensor] = {}
    for name, tensor in _read_tensors(stored, expected_shapes):
        update = updates.get(name)
        weight = (tensor if update is None else update.apply(tensor)).to(device=device, dtype=dtype)
        if weight_format and name in quantized_names:
            layer = name.removesuffix("weight")
            quantized_weight, weight_scale = quantize_weight(weight, weight_format)
            weights[f"{layer}quantized_weight"], weights[f"{layer}weight_scale"] = quantized_weight, weight_scale
        else:
            # A tensor that stays mapped to the file would keep the other tensors of its mapping in memory as well.
            weights[name] = weight.clone() if weight is tensor else weight
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def empty_model(folder: Path) -> Qwen3VL:
    """Return a checkpoint's model on the meta device: its tensors have shapes, but no values.

    Args:
        folder: A checkpoint folder.

    Returns:
        The model.

    Raises:
        ModelError: `config.json` is missing, damaged or of another architecture.
    """
    with torch.device("meta"):
        return Qwen3VL(read_config(folder / "config.json"))


def updates_of(adapter: Path, model: Qwen3VL) -> dict[str, WeightUpdate]:
    """Read what an adapter changes in a model.

    Args:
        adapter: The adapter's folder.
        model: A model as `empty_model` makes it.

    Returns:
        The changes, by the names of the model's tensors and `LM_HEAD`.

    Raises:
        ModelError: The adapter is damaged, of a kind that cannot be merged, or does not fit the model.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    return read_updates(adapter, {**shapes, LM_HEAD: shapes[EMBEDDING]})


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
            with open_safetensors(path) as file:
                for name in some_names:
                    tensor = file.get_tensor(stored[name][0])
                    if tuple(tensor.shape) != expected_shapes[name]:
                        raise ModelError(
                            f"{path}: {stored[name][0]} has shape {tuple(tensor.shape)}; config.json asks for "
                            f"{expected_shapes[name]}"
                        )
                    yield name, tensor


def yes_no_weight(folder: Path, model: Qwen3VL, yes_id: int, no_id: int, adapter: Path | None = None) -> Tensor:
    """Return the difference of the output head's rows for "yes" and "no", which a reranker's score is computed with.

    As `get_binary_linear` of the official `src/models/qwen3_vl_reranker.py`. Only these two rows are read.

    Args:
        folder: The model's checkpoint folder.
        model: The model.
        yes_id: Token id of "yes".
        no_id: Token id of "no".
        adapter: Folder of the LoRA adapter that was merged into the model.

    Returns:
        (hidden_size,), in the model's dtype and on its device.

    Raises:
        ModelError: The head is neither tied to the input embedding nor stored, so this is not a reranker.
    """
    files = weight_files(folder)
    name = stored_head(files, tied=model.config.tie_word_embeddings)
    if name is None:
        raise ModelError(
            f"{folder} has no {LM_HEAD}, and by its config.json the head is not tied to the input embedding: "
            "it is not a reranker"
        )
    ids = [yes_id, no_id]
    with open_safetensors(files[name]) as file:
        head = file.get_slice(name)
        rows = torch.stack([head[token_id] for token_id in ids])
    update = None if adapter is None else updates_of(adapter, empty_model(folder)).get(LM_HEAD)
    if update is not None:
        rows = update.of_rows(ids).apply(rows)
    rows = rows.to(device=model.device, dtype=model.dtype)
    return rows[0] - rows[1]


def stored_head(stored: Iterable[str], *, tied: bool) -> str | None:
    """Return the tensor of a checkpoint that is the output head.

    A tied head is the input embedding as the checkpoint has it: what an adapter changes in the embedding is not changed
    in the head, and the reverse, as in peft. An adapter that changes both says so.

    Args:
        stored: Names of the stored tensors.
        tied: Whether the head is tied to the input embedding.

    Returns:
        The name as stored; None if there is no head.
    """
    wanted = EMBEDDING if tied else LM_HEAD
    return next((name for name in stored if name.removeprefix("model.") == wanted), None)


def check_names(folder: Path, expected: Iterable[str], stored: Iterable[str]) -> None:
    """Check that a checkpoint has the tensors that its `config.json` asks for.

    Args:
        folder: The checkpoint folder, for the error message.
        expected: Names of the model's tensors.
        stored: Names of the stored tensors without their prefix, except for the output head.

    Raises:
        ModelError: Tensors are missing or unexpected.
    """
    missing, unexpected = sorted(set(expected) - set(stored)), sorted(set(stored) - set(expected))
    if missing or unexpected:
        raise ModelError(
            f"the weights in {folder} do not fit its config.json: "
            f"{len(missing)} missing{_first_names(missing)}, {len(unexpected)} unexpected{_first_names(unexpected)}"
        )


def _first_names(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


@contextmanager
def open_safetensors(path: Path) -> Iterator[Any]:
    """Return a context with an open file of weights.

    Args:
        path: The file.

    Yields:
        The open file.

    Raises:
        ModelError: It is damaged or incomplete, or lacks a tensor that is read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or incomplete: {error}. Download it again") from error

"""Writes a checkpoint with a LoRA adapter merged into it, for programs that read no adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from qwen3vl.errors import ModelError
from qwen3vl.model.hub import CHECKPOINT_FILES, Checkpoint
from qwen3vl.model.kind import check_kind_of_base
from qwen3vl.model.lora.config import CONFIG_FILE as ADAPTER_CONFIG_FILE
from qwen3vl.model.lora.updates import WeightUpdate
from qwen3vl.model.weights import (
    EMBEDDING,
    INDEX_FILE,
    LM_HEAD,
    SINGLE_FILE,
    check_names,
    empty_model,
    open_safetensors,
    stored_head,
    updates_of,
    weight_files,
)

_COPIED_FILES = ("*.json", "*.jinja", "*.txt", "1_*/config.json")
"""The files beside the weights: tokenizer, processors, templates, and those of sentence-transformers."""
SOURCE_FILES = (*CHECKPOINT_FILES, *_COPIED_FILES)
"""The files to download of a model that is to be merged."""


def write_merged_checkpoint(checkpoint: Checkpoint, out: Path) -> int:
    """Write a model with its adapter merged, in float32, and then rounded to the dtype that each tensor is stored in.

    Files and names of tensors are those of the base model. If the output head is tied to the input embedding and the
    adapter changes either, the written model has a head of its own.

    Args:
        checkpoint: A model with an adapter.
        out: The folder to write to; it must not exist, or be empty. `config.json` is written last.

    Returns:
        How many tensors the adapter has changed.

    Raises:
        ModelError: `out` has files, there is no adapter, it or the model is damaged, they do not fit each other, or the
            adapter was trained on a model of the other kind.
        OSError: A file cannot be written.
    """
    if out.is_dir() and any(out.iterdir()):
        raise ModelError(f"{out} is not empty; name a new folder")
    if checkpoint.adapter is None:
        raise ModelError(f"there is no adapter to merge into {checkpoint.name}")
    check_kind_of_base(checkpoint)
    folder = checkpoint.folder
    model = empty_model(folder)
    files = weight_files(folder)
    check_names(folder, model.state_dict(), [name.removeprefix("model.") for name in files if name != LM_HEAD])
    updates = updates_of(checkpoint.adapter.folder, model)
    sources = {name: name for name in files}
    head = stored_head(files, tied=model.config.tie_word_embeddings)
    unties = model.config.tie_word_embeddings and not updates.keys().isdisjoint({EMBEDDING, LM_HEAD})
    if head is None and LM_HEAD in updates:
        raise ModelError(f"the adapter {checkpoint.adapter.name} changes {LM_HEAD}, which {folder} does not have")
    if head is not None and unties:
        sources[LM_HEAD], files[LM_HEAD] = head, files[head]

    out.mkdir(parents=True, exist_ok=True)
    num_bytes = 0
    for path in sorted(set(files.values())):
        tensors = dict(_merge(path, {name: sources[name] for name in files if files[name] == path}, updates))
        num_bytes += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, out / path.name, metadata={"format": "pt"})
    if not (folder / SINGLE_FILE).is_file():
        index = {
            "metadata": {"total_size": num_bytes},
            "weight_map": {name: path.name for name, path in sorted(files.items())},
        }
        (out / INDEX_FILE).write_text(json.dumps(index, indent=2), encoding="utf-8")
    _copy_other_files(folder, out)
    _write_config(folder, out, unties=unties)
    return len(updates)


def _merge(path: Path, sources: Mapping[str, str], updates: Mapping[str, WeightUpdate]) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a written file by name; `sources` has the stored name of each."""
    with open_safetensors(path) as file:
        for name, source in sources.items():
            tensor = file.get_tensor(source)
            update = updates.get(name.removeprefix("model."))
            if update is not None:
                tensor = update.apply(tensor).to(tensor.dtype)
            elif name != source:
                tensor = tensor.clone()  # files have no two tensors in one place of memory
            yield name, tensor


def _copy_other_files(folder: Path, out: Path) -> None:
    # A training's folder may have the settings of its adapter, which transformers would then look for in the new one.
    skipped = {"config.json", INDEX_FILE, "pytorch_model.bin.index.json", ADAPTER_CONFIG_FILE}
    for path in sorted({path for pattern in _COPIED_FILES for path in folder.glob(pattern)}):
        name = path.relative_to(folder)
        if str(name) not in skipped:
            (out / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, out / name)


def _write_config(folder: Path, out: Path, *, unties: bool) -> None:
    text = (folder / "config.json").read_text(encoding="utf-8")
    if unties:
        config = json.loads(text)
        for section in (config, config["text_config"]):
            section["tie_word_embeddings"] = False
        text = json.dumps(config, indent=2)
    (out / "config.json").write_text(text, encoding="utf-8")

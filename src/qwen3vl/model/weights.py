"""Reads a checkpoint folder: every weight of the model, none missing and none left over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from qwen3vl.errors import ModelError
from qwen3vl.model.config import read_config
from qwen3vl.model.layers.quantized import WeightFormat, quantize_linears, quantize_rows
from qwen3vl.model.qwen3_vl import Qwen3VL

HEAD = "lm_head.weight"


def weight_files(folder: Path) -> dict[str, Path]:
    """The file of each stored tensor, from the shards' index or the single file."""
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if index.is_file():
        names: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        missing = sorted({name for name in names.values() if not (folder / name).is_file()})
        if missing:
            raise ModelError(f"{folder} is incomplete: {', '.join(missing)} named in {index.name} is not there")
        return {tensor: folder / name for tensor, name in names.items()}
    if single.is_file():
        with _opened(single) as file:
            return dict.fromkeys(file.keys(), single)
    raise ModelError(f"{folder} holds no weights: neither {single.name} nor {index.name} is there")


def load_model(folder: Path, device: torch.device, dtype: torch.dtype, bits: WeightFormat | None = None) -> Qwen3VL:
    """The model of a checkpoint folder, ready to run; with `bits`, its blocks' weights are narrowed as they are read.

    Names are taken with or without the published `model.` prefix.  A head (`lm_head.weight`) is left for
    `yes_no_weight`.  Raises `ModelError` that lists what is missing, left over, or of another shape.
    """
    with torch.device("meta"):
        model = Qwen3VL(read_config(folder / "config.json"))
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    stored = {name.removeprefix("model."): (name, path) for name, path in weight_files(folder).items() if name != HEAD}
    _compare(folder, wanted, stored)
    narrowed = quantize_linears(model, bits) if bits else set()
    weights: dict[str, Tensor] = {}
    for path in sorted({path for _, path in stored.values()}):
        with _opened(path) as file:
            for name, (key, place) in stored.items():
                if place == path:
                    tensor = file.get_tensor(key)
                    if tuple(tensor.shape) != wanted[name]:
                        raise ModelError(
                            f"{path}: {key} has shape {tuple(tensor.shape)}; config.json asks for {wanted[name]}"
                        )
                    wide = tensor.to(device=device, dtype=dtype)
                    if bits and name in narrowed:
                        layer = name.removesuffix("weight")
                        weights[f"{layer}packed"], weights[f"{layer}scale"] = quantize_rows(wide, bits)
                    else:
                        weights[name] = wide
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)


def _compare(folder: Path, wanted: Iterable[str], stored: Iterable[str]) -> None:
    missing, unexpected = sorted(set(wanted) - set(stored)), sorted(set(stored) - set(wanted))
    if missing or unexpected:
        raise ModelError(
            f"the weights in {folder} are not those of its config.json: "
            f"{len(missing)} missing{_some(missing)}, {len(unexpected)} unexpected{_some(unexpected)}"
        )


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else ""


def yes_no_weight(folder: Path, model: Qwen3VL, yes: int, no: int) -> Tensor:
    """The difference of the head's rows for "yes" and "no", in the model's dtype: (hidden,).

    A tied head is the input embedding; otherwise only these two rows of `lm_head.weight` are read.
    """
    if model.config.tied:
        rows = model.language_model.embed_tokens.weight
        return rows[yes] - rows[no]
    path = weight_files(folder).get(HEAD)
    if path is None:
        raise ModelError(f"{folder} has an untied head by its config.json, but no {HEAD}: it is not a reranker")
    with _opened(path) as file:
        head = file.get_slice(HEAD)
        pair = torch.stack([head[yes], head[no]]).to(device=model.device, dtype=model.dtype)
    return pair[0] - pair[1]


def fingerprint(folder: Path) -> str:
    """A digest of config.json, tokenizer.json and every byte of the weights: 16 hexadecimal digits.

    A hub's cache names files by their SHA-256, which is taken from there; others are read once per process.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} is not a complete model folder: it has no {name}")
        digest.update((folder / name).read_bytes())
    for path in sorted(set(weight_files(folder).values())):
        stat = path.stat()
        digest.update(f"{path.name}:{_sha256(path, stat.st_size, stat.st_mtime_ns)}".encode())
    return digest.hexdigest()[:16]


@lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _changed: int) -> str:
    blob = path.resolve().name
    if path.is_symlink() and len(blob) == 64 and set(blob) <= set("0123456789abcdef"):
        return blob
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {error}") from error

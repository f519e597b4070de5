"""A digest of the files of a model and its adapter, which tells whether two vectors come from the same model."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from qwen3vl.errors import ModelError
from qwen3vl.model.lora.config import read_lora_config
from qwen3vl.model.lora.updates import weights_file
from qwen3vl.model.weights import weight_files

_REMEDIES = {
    "tokenizer.json": ". Trainers that write a merged model often leave it out: copy it from the model that was "
    "fine-tuned. Those of embedding models and rerankers differ, so none is taken by default"
}
"""What helps if a file is missing."""


def fingerprint(folder: Path, adapter: Path | None = None) -> str:
    """Return a digest of `config.json`, `tokenizer.json`, and the name and every byte of each weight file.

    The same weights in other shards have another fingerprint. Other files of the folder do not count. Of an adapter,
    the weight file counts, and the settings that decide how it is merged.

    The JSON files are read at every call. Weights that are symlinks to files named by 64 hexadecimal digits are not
    read: in the hub's cache, that is the SHA-256 of the file. Other weights are read once per process (up to 64
    files), and again when their size or modification time changes.

    Args:
        folder: A checkpoint folder.
        adapter: The folder of a LoRA adapter that is merged into it.

    Returns:
        16 hexadecimal digits.

    Raises:
        ModelError: A file is missing, `model.safetensors` or the index of the shards is damaged, or the adapter's
            settings are damaged or unsupported.
    """
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} is not a complete model folder: it has no {name}{_REMEDIES.get(name, '')}")
        digest.update((folder / name).read_bytes())
    for path in sorted(set(weight_files(folder).values())):
        digest.update(f"{path.name}:{_sha256(path)}".encode())
    if adapter is not None:
        settings = json.dumps(asdict(read_lora_config(adapter)))
        digest.update(f"adapter:{settings}:{_sha256(weights_file(adapter))}".encode())
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of_version(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256_of_version(path: Path, _size: int, _mtime_ns: int) -> str:
    """Return a file's SHA-256: of a link into the hub's cache the name of its target, else the digest of the content.

    Size and modification time are part of the key of `lru_cache`.
    """
    blob_name = path.resolve().name
    if path.is_symlink() and len(blob_name) == 64 and set(blob_name) <= set("0123456789abcdef"):
        return blob_name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

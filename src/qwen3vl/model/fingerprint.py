"""A digest of a model's files, which tells whether two vectors come from the same model."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from qwen3vl.errors import ModelError
from qwen3vl.model.weights import weight_files


def fingerprint(folder: Path) -> str:
    """Return a digest of `config.json`, `tokenizer.json`, and the name and every byte of each weight file.

    The same weights in other shards have another fingerprint. Other files of the folder do not count.

    The JSON files are read at every call. Weights that are symlinks to files named by 64 hexadecimal digits are not
    read: in the hub's cache, that is the SHA-256 of the file. Other weights are read once per process (up to 64
    files), and again when their size or modification time changes.

    Args:
        folder: A checkpoint folder.

    Returns:
        16 hexadecimal digits.

    Raises:
        ModelError: A file is missing, or `model.safetensors` or the index of the shards is damaged.
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
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """Return a file's SHA-256: of a link into the hub's cache the name of its target, else the digest of the content.

    Size and modification time are part of the key of `lru_cache`.
    """
    blob_name = path.resolve().name
    if path.is_symlink() and len(blob_name) == 64 and set(blob_name) <= set("0123456789abcdef"):
        return blob_name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

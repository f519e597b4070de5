"""Where a model's files are: a local folder, the tiny pair of this package, or a repository of the hub."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from qwen3vl.errors import ModelError
from qwen3vl.processing.geometry import Limits

FILES = ("config.json", "tokenizer.json", "model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
"""All that is read of a repository."""
TINY_MAX_PIXELS = 96 * 96
"""The tiny pair knows pictures of this size: larger ones are shrunk to it unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model's files; `name` is what the caller asked for, `revision` the hub's commit."""

    folder: Path
    name: str
    revision: str | None = None


def resolve_checkpoint(
    model: str | Path, kind: Literal["embedding", "reranker"], revision: str | None = None
) -> Checkpoint:
    """Finds a model, downloading it where `model` is a hub id.

    A folder that exists wins over a hub id of the same name.  Raises `ModelError` where there is none.
    """
    if str(model) == "tiny":
        return Checkpoint(Path(str(files("qwen3vl"))) / "tiny" / kind, "tiny")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Checkpoint(folder.resolve(), str(folder.resolve()))
    name = str(model)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"{name} is neither a folder nor a hub id such as Qwen/Qwen3-VL-Embedding-2B, nor 'tiny'")
    return _download(name, revision)


def default_max_pixels(model: str | Path) -> int:
    """Pixels of a picture where the caller names no limit: the official scripts' own, but for the tiny pair."""
    return TINY_MAX_PIXELS if str(model) == "tiny" else Limits.max_pixels


def _download(name: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # the hub client raises its own, httpx's, requests' and OS errors
        wanted = name if revision is None else f"{name} at revision {revision}"
        raise ModelError(f"{wanted} cannot be had from the model hub: {error}") from error
    # A snapshot's folder is named by its commit.
    return Checkpoint(folder, name, folder.name)

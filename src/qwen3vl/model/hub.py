"""Where a model's files are: in a local folder, in this package (the tiny models), or on the Hugging Face hub."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal

from qwen3vl.errors import ModelError

CHECKPOINT_FILES = (
    "config.json",
    "tokenizer.json",
    "model.safetensors",
    "model-*.safetensors",
    "model.safetensors.index.json",
    "README.md",
    "config_sentence_transformers.json",
    "modules.json",
    "1_*/config.json",
)
"""The files that are downloaded from a repository; nothing else is read. The last four say what kind of model it is."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model's files.

    Attributes:
        folder: The folder.
        name: What the user asked for: a hub id, an absolute path, or `"tiny"`.
        revision: Commit of the hub repository, or None.
    """

    folder: Path
    name: str
    revision: str | None = None


def resolve_checkpoint(
    model: str | Path, kind: Literal["embedding", "reranker"], revision: str | None = None
) -> Checkpoint:
    """Find a model's files, downloading them if `model` is a hub id.

    Args:
        model: A folder, a hub id, or `"tiny"`. A folder that exists takes precedence over a hub id of the same name,
            but not over `"tiny"`: write `"./tiny"` for a folder of this name.
        kind: Which of the tiny models `"tiny"` means.
        revision: Branch, tag or commit on the hub; ignored for local files.

    Returns:
        The checkpoint.

    Raises:
        ModelError: `model` is neither, or cannot be downloaded.
    """
    if str(model) == "tiny":
        return Checkpoint(Path(str(files("qwen3vl"))) / "tiny" / kind, "tiny")
    folder = Path(os.path.expanduser(model))  # noqa: PTH111 (Path.expanduser raises an error for an unknown user)
    if folder.is_dir():
        return Checkpoint(folder.resolve(), str(folder.resolve()))
    name = str(model)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"{name} is neither a folder nor a hub id such as Qwen/Qwen3-VL-Embedding-2B, nor 'tiny'")
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Checkpoint:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(CHECKPOINT_FILES)))
    except Exception as error:  # the hub client raises its own errors, those of its HTTP library, and OSError
        repository = name if revision is None else f"{name} at revision {revision}"
        raise ModelError(
            f"{repository} cannot be downloaded from the model hub: {error}. Check the name, the network and, for a "
            "private repository, the access token; or download it elsewhere and pass its folder"
        ) from error
    # The folder of a snapshot is named by its commit.
    return Checkpoint(folder, name, folder.name)

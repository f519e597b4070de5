"""Where the files of a model or adapter are: in a local folder, in this package, or on the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as package_files
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
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""The files of a LoRA adapter that are downloaded."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A folder with the files of a LoRA adapter.

    Attributes:
        folder: The folder.
        name: A hub id with its commit, as `"owner/name@commit"`, or an absolute path.
    """

    folder: Path
    name: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with a model's files.

    Attributes:
        folder: The folder.
        name: What the user asked for: a hub id, an absolute path, or `"tiny"`.
        revision: Commit of the hub repository, or None.
        adapter: An adapter to merge into the model, or None.
    """

    folder: Path
    name: str
    revision: str | None = None
    adapter: Adapter | None = None

    @property
    def adapter_folder(self) -> Path | None:
        """Folder of the adapter; None without one."""
        return None if self.adapter is None else self.adapter.folder


def resolve_checkpoint(
    model: str | Path,
    kind: Literal["embedding", "reranker"],
    revision: str | None = None,
    adapter: str | Path | None = None,
    *,
    files: Sequence[str] = CHECKPOINT_FILES,
) -> Checkpoint:
    """Find a model's files, downloading them if `model` is a hub id.

    Args:
        model: A folder, a hub id, or `"tiny"`. A folder that exists takes precedence over a hub id of the same name,
            but not over `"tiny"`: write `"./tiny"` for a folder of this name.
        kind: Which of the tiny models `"tiny"` means.
        revision: Branch, tag or commit on the hub; ignored for local files.
        adapter: A LoRA adapter to merge into it; see `resolve_adapter`.
        files: Patterns of the files to download.

    Returns:
        The checkpoint.

    Raises:
        ModelError: `model` is neither, or it or the adapter cannot be downloaded.
    """
    resolved = None if adapter is None else resolve_adapter(adapter)
    if str(model) == "tiny":
        return Checkpoint(Path(str(package_files("qwen3vl"))) / "tiny" / kind, "tiny", adapter=resolved)
    folder = _local_folder(model)
    if folder is not None:
        return Checkpoint(folder, str(folder), adapter=resolved)
    name = str(model)
    if not _is_hub_id(name):
        raise ModelError(f"{name} is neither a folder nor a hub id such as Qwen/Qwen3-VL-Embedding-2B, nor 'tiny'")
    folder = _download(name, revision, files)
    # The folder of a snapshot is named by its commit.
    return Checkpoint(folder, name, folder.name, resolved)


def resolve_adapter(adapter: str | Path) -> Adapter:
    """Find a LoRA adapter's files, downloading them if `adapter` is a hub id.

    Args:
        adapter: A folder, or a hub id, perhaps with a branch, tag or commit: `"owner/name@revision"`.

    Returns:
        The adapter.

    Raises:
        ModelError: `adapter` is neither, or cannot be downloaded.
    """
    folder = _local_folder(adapter)
    if folder is not None:
        return Adapter(folder, str(folder))
    name, _, revision = str(adapter).partition("@")
    if not _is_hub_id(name):
        raise ModelError(
            f"the adapter {adapter} is neither a folder nor a hub id such as owner/name or owner/name@main"
        )
    folder = _download(name, revision or None, ADAPTER_FILES)
    return Adapter(folder, f"{name}@{folder.name}")


def _local_folder(name: str | Path) -> Path | None:
    folder = Path(os.path.expanduser(name))  # noqa: PTH111 (Path.expanduser raises an error for an unknown user)
    return folder.resolve() if folder.is_dir() else None


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _download(name: str, revision: str | None, files: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except Exception as error:  # the hub client raises its own errors, those of its HTTP library, and OSError
        repository = name if revision is None else f"{name} at revision {revision}"
        raise ModelError(
            f"{repository} cannot be downloaded from the model hub: {error}. Check the name, the network and, for a "
            "private repository, the access token; or download it elsewhere and pass its folder"
        ) from error

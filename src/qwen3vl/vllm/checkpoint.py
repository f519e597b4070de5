"""The files of the model that vLLM serves, as far as they are needed here: its tokenizer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.errors import ModelError
from qwen3vl.processing.tokenizer import Tokenizer

_TOKENIZER_FILE = "tokenizer.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True, eq=False)
class ServedCheckpoint:
    """What is known of the model that vLLM serves.

    Attributes:
        tokenizer: Its tokenizer.
        weights: For the recipe: the fingerprint of a folder that has the weights, as for a model in this process. vLLM
            does not tell which weights it has, so that otherwise this is the model's name.
    """

    tokenizer: Tokenizer
    weights: str


def open_checkpoint(name: str, tokenizer: str | Path | None, revision: str | None) -> ServedCheckpoint:
    """Find the tokenizer of the model that vLLM serves.

    Args:
        name: The name under which vLLM has loaded the model: a hub id, or a folder on its machine.
        tokenizer: A folder, or a hub id, of the same model; None is `name`.
        revision: Branch, tag or commit on the hub.

    Returns:
        The tokenizer and the identity of the weights.

    Raises:
        ModelError: There is none.
    """
    source = name if tokenizer is None else str(tokenizer)
    folder = Path(os.path.expanduser(source))  # noqa: PTH111 (Path.expanduser raises an error for an unknown user)
    if not folder.is_dir():
        return ServedCheckpoint(Tokenizer(_download(source, revision, name)), f"vllm:{name}")
    if not (folder / _TOKENIZER_FILE).is_file():
        raise ModelError(f"{folder} has no {_TOKENIZER_FILE}; pass a folder that has that of {name} as tokenizer")
    has_weights = any((folder / file).is_file() for file in _WEIGHTS)
    weights = _fingerprint(folder) if has_weights else f"vllm:{name}"
    return ServedCheckpoint(Tokenizer(folder / _TOKENIZER_FILE), weights)


def _fingerprint(folder: Path) -> str:
    try:
        from qwen3vl.model.fingerprint import fingerprint
    except ModuleNotFoundError as error:
        raise ModelError(
            f"{folder} has weights, whose fingerprint is part of the recipe, and {error.name}, which reads it, is not "
            f"installed: install qwen3vl[torch], or pass a folder with {_TOKENIZER_FILE} alone as tokenizer"
        ) from error
    return fingerprint(folder)


def _download(source: str, revision: str | None, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source, _TOKENIZER_FILE, revision=revision))
    except Exception as error:  # the hub client raises its own errors, those of its HTTP library, and OSError
        raise ModelError(
            f"the tokenizer of {name} is needed to make prompts for vLLM, and {source} is neither a folder here nor "
            f"can it be downloaded from the model hub: {error}. Pass a folder that has the model's {_TOKENIZER_FILE} "
            "as tokenizer"
        ) from error

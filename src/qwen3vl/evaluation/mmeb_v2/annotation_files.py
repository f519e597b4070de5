"""Finds the files of a split in a copy of a hub repository, or in a folder that `Dataset.save_to_disk` wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen3vl.errors import InputError, Qwen3VLError
from qwen3vl.evaluation.mmeb_v2.specs import Source

INSTALL = 'at the root of a clone of the repository run: pip install ".[mmeb]"'
_SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")
_SPLIT_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "eval")}
_NOT_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def annotation_folder(data: Path, source: Source) -> Path:
    """Return where the annotations of a repository are, as the official scripts name it.

    Args:
        data: The folder of all data.
        source: The repository.

    Returns:
        The folder, which may not exist.
    """
    return data / "annotation" / source.repo


def find_files(data: Path, source: Source) -> list[Path]:
    """Find the files of a split.

    Args:
        data: The folder of all data.
        source: Repository, configuration and split.

    Returns:
        The files in the order of their rows.

    Raises:
        InputError: There are none.
        Qwen3VLError: PyYAML is not installed, and the repository describes its files in its README.
    """
    folder = annotation_folder(data, source)
    if not folder.is_dir():
        raise InputError(f"the annotations are missing: there is no folder {folder}. {_download_hint(folder, source)}")
    parts = [folder / source.config] if source.config else []
    for saved in (*parts, folder):
        if (saved / "state.json").is_file():
            return _saved_files(saved)
    configs = _configs(folder)
    files = _described_files(folder, source, configs) if configs else _files_by_name(folder, source)
    if not files:
        what = f"split {source.split!r}" + (f" of the configuration {source.config!r}" if source.config else "")
        raise InputError(f"{folder} has no files of the {what}. {_download_hint(folder, source)}")
    return files


def _download_hint(folder: Path, source: Source) -> str:
    return f"Download it: hf download {source.repo} --repo-type dataset --local-dir {folder}"


def _saved_files(folder: Path) -> list[Path]:
    """Return the files that `Dataset.save_to_disk` lists."""
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return [folder / file["filename"] for file in state["_data_files"]]


def _described_files(folder: Path, source: Source, configs: Sequence[Mapping[str, Any]]) -> list[Path]:
    """Return the files that the `configs` at the top of the README name; empty if they have no such configuration."""
    if source.config is not None:
        chosen = [config for config in configs if config.get("config_name") == source.config]
    else:
        chosen = [config for config in configs if config.get("default")] or [
            config for config in configs if config.get("config_name", "default") == "default" or len(configs) == 1
        ]
    if not chosen:
        return []
    data_files = chosen[0].get("data_files")
    if data_files is None:
        return _files_by_name(folder / chosen[0].get("data_dir", ""), replace(source, config=None))
    patterns = _patterns(data_files, source.split)
    return [file for pattern in patterns for file in sorted(folder.glob(pattern)) if file.is_file()]


def _configs(folder: Path) -> list[Mapping[str, Any]]:
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    header = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if header is None or "configs:" not in header[1]:
        return []
    try:
        import yaml
    except ImportError as error:
        raise Qwen3VLError(f"{readme} is read with PyYAML, which is not installed; {INSTALL}") from error
    try:
        return list((yaml.safe_load(header[1]) or {}).get("configs") or [])
    except yaml.YAMLError as error:
        raise InputError(f"the YAML at the top of {readme} cannot be read: {error}. Download it again.") from error


def _patterns(data_files: Any, split: str) -> list[str]:
    """Return the glob patterns of a split. What is named without a split is its only one, `train`."""
    if isinstance(data_files, list) and all(isinstance(entry, Mapping) for entry in data_files):
        return [pattern for entry in data_files if entry["split"] == split for pattern in _listed(entry["path"])]
    return _listed(data_files) if split == "train" else []


def _listed(paths: Any) -> list[str]:
    return [paths] if isinstance(paths, str) else list(paths)


def _files_by_name(folder: Path, source: Source) -> list[Path]:
    """Return the files whose path below the folder has the split's name as a word; for `train` else all files.

    Those of a configuration are in a folder of its name, or their names are its name and the split's.
    """
    words = _SPLIT_WORDS.get(source.split, (source.split,))
    files = sorted(file for file in folder.rglob("*") if file.suffix in _SUFFIXES and file.name not in _NOT_DATA)
    if source.config is not None:
        stem = re.compile(rf"{re.escape(source.config)}([-_.]({'|'.join(words)})\b.*)?")
        in_folder = [file for file in files if source.config in file.relative_to(folder).parts[:-1]]
        files = in_folder or [file for file in files if stem.fullmatch(file.stem)]
    found = _with_word(files, folder, words)
    if found or source.split != "train":
        return found
    other_words = [word for split, words in _SPLIT_WORDS.items() if split != "train" for word in words]
    return [] if _with_word(files, folder, other_words) else files


def _with_word(files: Iterable[Path], folder: Path, words: Iterable[str]) -> list[Path]:
    pattern = re.compile(rf"(^|[^a-zA-Z])({'|'.join(map(re.escape, words))})($|[^a-zA-Z])")
    return [file for file in files if pattern.search(file.relative_to(folder).as_posix())]

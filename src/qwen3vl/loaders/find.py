"""Finds files: in folders with everything below them, by glob patterns, or by their own paths."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen3vl.documents import LoadFailure
from qwen3vl.loaders.outcomes import Skipped, attempt


def find_files(path: str, exclude: Sequence[Path]) -> Iterator[Path | LoadFailure | Skipped]:
    """Find the files of a path or pattern. Nothing is opened, and files that cannot be opened are among them.

    Args:
        path: A folder, a file or a glob pattern, without `~`.
        exclude: Folders that are not entered.

    Yields:
        Absolute paths; a folder's files come before its subfolders, each sorted by name. Failures are folders that
        cannot be read; links to folders are not followed.
    """
    if os.path.isdir(path):
        yield from _walk(_resolve(path), {_resolve(folder) for folder in exclude})
    elif os.path.lexists(path):
        yield _resolve(path)
    elif glob.has_magic(path):
        for match in sorted(glob.glob(path, recursive=True)):
            if not os.path.isdir(match):
                yield _resolve(match)


def _resolve(path: str | Path) -> Path:
    """Return the absolute path; unlike `Path.resolve`, it raises nothing if links form a loop."""
    return Path(os.path.realpath(path))


def _walk(folder: Path, excluded: set[Path]) -> Iterator[Path | LoadFailure | Skipped]:
    """Walk a tree of any depth."""
    pending = [folder]
    while pending:
        current = pending.pop()
        if current in excluded:
            continue
        subfolders: list[Path] = []
        yield from attempt(str(current), _list_folder, current, subfolders)
        pending.extend(reversed(subfolders))


def _list_folder(folder: Path, subfolders: list[Path]) -> Iterator[Path | Skipped]:
    """Yield a folder's files, and add its subfolders to a list."""
    with os.scandir(folder) as entries:
        paths = sorted(entry.path for entry in entries if not entry.name.startswith("."))
    for path in paths:
        if not os.path.isdir(path):
            yield Path(path)
        elif os.path.islink(path):
            yield Skipped(path, "link to a folder")
        else:
            subfolders.append(Path(path))

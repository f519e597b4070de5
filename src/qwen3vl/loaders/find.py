"""Finds files: in folders with everything below them, by glob patterns, or by their own paths."""

# The methods of `Path` raise errors where the functions of `os.path` return False.
# ruff: noqa: PTH100, PTH111, PTH112, PTH207

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen3vl.documents import LoadFailure
from qwen3vl.loaders.outcomes import Skipped, attempt, storable_name


def expand_user(path: str) -> str:
    """Replace `~` and `~user` at the beginning of a path; a path with an unknown user is left as it is.

    Args:
        path: A path or pattern.

    Returns:
        The path.
    """
    return os.path.expanduser(path)


def absolute_name(path: str) -> str:
    """Return the absolute path as the source of a failure.

    Links are followed, as for files that are found: what was loaded from below a path that is gone now, because a disk
    is not mounted, is then recognized as its own.

    Args:
        path: A path or pattern.

    Returns:
        The path as valid Unicode.
    """
    try:
        return storable_name(os.path.realpath(path))
    except ValueError:  # a null character
        return storable_name(os.path.abspath(path))


def find_files(path: str, exclude: Sequence[Path]) -> Iterator[Path | LoadFailure | Skipped]:
    """Find the files of a path or pattern. Nothing is opened, and files that cannot be opened are among them.

    Args:
        path: A folder, a file or a glob pattern, after `expand_user`.
        exclude: Folders that are not entered, and in which no file matches a pattern.

    Yields:
        Absolute paths; a folder's files come before its subfolders, each sorted by name. Failures are folders that
        cannot be read and paths that do not exist; links to folders are not followed.
    """
    excluded = {_resolve(folder) for folder in exclude}
    if os.path.isdir(path):
        yield from _walk(_resolve(path), excluded)
    elif os.path.lexists(path):
        target = _resolve(path)
        if os.path.lexists(target):  # also a link of a loop, which is an error when it is opened
            yield target
        else:
            reason = "it does not exist, and a link leads to it; check the link, or mount the disk"
            yield LoadFailure(absolute_name(path), reason)
    else:
        is_empty = True
        for match in _match(path, excluded) if glob.has_magic(path) else ():
            is_empty = False
            if not (isinstance(match, Path) and any(map(match.is_relative_to, excluded))):
                yield match
        if is_empty:
            reason = "there is no such file or folder, and no file matches it as a pattern; check the path"
            yield LoadFailure(absolute_name(path), reason)


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


def _list_folder(folder: Path, subfolders: list[Path]) -> Iterator[Path | LoadFailure | Skipped]:
    """Yield a folder's files, and add its subfolders to a list."""
    for entry in _visible_entries(folder):
        yield from attempt(entry.path, _visit, entry, subfolders)


def _visit(entry: os.DirEntry[str], subfolders: list[Path]) -> Iterator[Path | Skipped]:
    if entry.is_dir(follow_symlinks=False):
        subfolders.append(Path(entry.path))
    elif entry.is_symlink() and os.path.isdir(entry.path):
        yield Skipped(storable_name(entry.path), "link to a folder")
    else:
        yield Path(entry.path)


def _match(pattern: str, excluded: set[Path]) -> Iterator[Path | LoadFailure]:
    """Yield the files that match a pattern. In place of `**`, trees of any depth are walked, each folder once.

    Excluded folders are not walked; what matches in them by name is yielded.
    """
    pending = [(_resolve("."), Path(pattern).parts)]
    visited = set()
    while pending:
        step = pending.pop()
        if step not in visited and step[0] not in excluded:
            visited.add(step)
            next_steps: list[tuple[Path, tuple[str, ...]]] = []
            yield from attempt(str(step[0]), _match_within, *step, next_steps)
            pending.extend(reversed(next_steps))


def _match_within(
    folder: Path, parts: tuple[str, ...], next_steps: list[tuple[Path, tuple[str, ...]]]
) -> Iterator[Path]:
    """Match the parts before the next `**` in a folder; yield files, and add folders with the parts that remain."""
    if parts[0] == "**":
        next_steps.append((folder, parts[1:] or ("*",)))
        next_steps.extend((subfolder, parts) for subfolder in _subfolders(folder))
        return
    end = parts.index("**") if "**" in parts else len(parts)
    for match in sorted(glob.glob(str(Path(*parts[:end])), root_dir=folder)):
        path = folder / match
        if os.path.isdir(path) != bool(parts[end:]):
            continue  # a folder in place of a file, or a file in place of a folder
        if parts[end:]:
            next_steps.append((_resolve(path), parts[end:]))
        else:
            yield _resolve(path)


def _subfolders(folder: Path) -> Iterator[Path]:
    """Yield a folder's visible subfolders, and those that links lead to."""
    for entry in _visible_entries(folder):
        if entry.is_dir(follow_symlinks=False):
            yield Path(entry.path)  # resolved as its parent is: `_resolve` takes long for deep paths
        elif entry.is_symlink() and os.path.isdir(entry.path):
            yield _resolve(entry.path)


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)

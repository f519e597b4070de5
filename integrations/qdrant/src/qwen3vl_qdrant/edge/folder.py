"""A folder of collections. One process at a time has it open; that process's threads and stores share one `EdgeFolder`.

In the folder are a file `.lock`, which this process locks and writes its process id to, and for each collection a
folder `collections/NAME` with its files.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import RLock
from typing import IO
from urllib.parse import quote, unquote

from qdrant_client import models

from qwen3vl.concurrency.fork_safety import ForkSafeRLock, init_in_each_process
from qwen3vl.durable import rename, sync_folder
from qwen3vl.errors import StoreError
from qwen3vl.stores.folders import check_folder, is_read_only, lock_folder
from qwen3vl_qdrant.edge.collection import DESCRIPTION, EdgeCollection, create_files, read_name

COLLECTIONS = "collections"
_LOCK = ".lock"
_open_folders: dict[Path, EdgeFolder] = {}
_registry_lock = ForkSafeRLock()
"""Reentrant: the garbage collector may release a folder in a thread that holds the lock."""


def acquire_folder(path: Path) -> EdgeFolder:
    """Open a folder; if this process has it open already, return the same object. Each call needs a `release_folder`.

    Args:
        path: The folder; it is created if it does not exist.

    Returns:
        The open folder.

    Raises:
        StoreError: Another process has it open, or it is no folder.
    """
    check_folder(path)
    real = path.resolve()
    with _registry_lock:
        while True:
            folder = _open_folders.get(real)
            if folder is None:
                folder = _open_folders[real] = EdgeFolder(real, path)
            folder.num_users += 1
            if _open_folders.get(real) is folder:  # else the garbage collector has just closed it
                return folder


def release_folder(folder: EdgeFolder) -> None:
    """Close a folder if this was its last user.

    Args:
        folder: What `acquire_folder` returned.
    """
    with _registry_lock:
        folder.num_users -= 1
        if folder.num_users == 0 and not folder.is_abandoned:
            del _open_folders[folder.path]
            folder.close()


class EdgeFolder:
    """An open folder; see `acquire_folder`.

    Args:
        path: The absolute path of the folder, with symbolic links resolved.
        shown: The folder as the caller passed it, for messages.

    Attributes:
        path: As passed.
        num_users: Number of calls of `acquire_folder` without a `release_folder` yet.
        is_read_only: Whether this process cannot write the folder. It then works on a temporary copy.
        is_abandoned: Whether this process was forked from the one that opened the folder, so that it may not use it.

    Raises:
        StoreError: Another process has it open, or it cannot be read.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        self.path = path
        self.num_users = 0
        self.is_read_only = is_read_only(path)
        self.is_abandoned = False
        self._shown = shown
        self._owner = os.getpid()
        self._lock = RLock()
        self._collections: dict[str, EdgeCollection] = {}
        self._copy: Path | None = None
        self._lock_file: IO[str] | None = None
        if self.is_read_only:
            self._copy = _copy(path, shown)
        else:
            path.mkdir(parents=True, exist_ok=True)
            self._lock_file = lock_folder(path / _LOCK, shown, partial(_is_open_elsewhere, shown))
        self._root = (self._copy or path) / COLLECTIONS
        for unfinished in (*self._root.glob(".deleted-*"), *self._root.glob(".new-*")):  # of a process that was killed
            shutil.rmtree(unfinished, ignore_errors=True)  # if it is in use, by a virus scanner perhaps: the next time
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Do nothing; in a forked process, leave the folder to the parent."""
        if os.getpid() == self._owner:
            return
        self.is_abandoned = True
        _open_folders.pop(self.path, None)
        for collection in self._collections.values():
            collection.abandon()
        if self._lock_file is not None:
            self._lock_file.close()

    def names(self) -> list[str]:
        """Return the names of the collections."""
        self._check()
        return sorted(unquote(file.parent.name) for file in self._root.glob(f"[!.]*/{DESCRIPTION}"))

    def exists(self, name: str) -> bool:
        """Return whether there is a collection of this name.

        Args:
            name: The name.

        Returns:
            True also if it is damaged, so that opening it is an error.

        Raises:
            ValueError: The name is empty.
            StoreError: The disk takes the name for that of another collection.
        """
        self._check()
        path = self._root / _file_name(name)
        if name in self._collections:
            return path.exists()
        stored = read_name(path)
        # A collection's folder that was copied by hand to another name is opened by that name.
        if stored is not None and stored != name and _alike(stored) == _alike(name):
            raise StoreError(
                f"{self._shown} has the collection {stored!r}, which this disk does not tell apart from {name!r}: open "
                "it by its own name, or use a name that differs in more than upper case or trailing dots and spaces"
            )
        return path.exists()

    def open(self, name: str) -> EdgeCollection:
        """Return an existing collection.

        Args:
            name: Its name.

        Returns:
            The open collection, the same object in each call.

        Raises:
            ValueError: There is none of this name, or the name is empty.
            StoreError: It is damaged, or the disk takes the name for that of another collection.
        """
        with self._lock:
            if not self.exists(name):
                raise ValueError(f"collection {name!r} not found in {self._shown}")
            if name not in self._collections:
                shown = self._shown / COLLECTIONS / _file_name(name)
                self._collections[name] = EdgeCollection(self._root / _file_name(name), shown, self._lock_files)
            return self._collections[name]

    def create(self, name: str, description: models.CreateCollection) -> None:
        """Create a collection.

        Args:
            name: Its name.
            description: Vectors, index and metadata.

        Raises:
            ValueError: There is one of this name, or the name is empty.
            StoreError: The disk takes the name for that of another collection.
        """
        with self._lock:
            if self.exists(name):
                raise ValueError(f"collection {name!r} already exists in {self._shown}")
            if not self._root.exists():
                self._root.mkdir()
                sync_folder(self._root.parent)
            create_files(self._root / _file_name(name), name, description)

    def delete(self, name: str) -> bool:
        """Delete a collection with its points.

        Args:
            name: Its name.

        Returns:
            Whether there was one.

        Raises:
            ValueError: The name is empty.
            StoreError: The disk takes the name for that of another collection.
        """
        with self._lock:
            if not self.exists(name):
                return False
            if name in self._collections:
                self._collections.pop(name).close()
            path = self._root / _file_name(name)
            deleted = path.with_name(f".deleted-{path.name}")
            shutil.rmtree(deleted, ignore_errors=True)
            rename(path, deleted)
            shutil.rmtree(deleted)
            return True

    def close(self) -> None:
        """Close all collections and unlock the folder."""
        with ExitStack() as stack:  # in reverse order, and each although another one fails
            if self._copy is not None:
                stack.callback(shutil.rmtree, self._copy, ignore_errors=True)
            if self._lock_file is not None:
                stack.callback(self._lock_file.close)
            for collection in self._collections.values():
                stack.callback(collection.close)
            self._collections.clear()

    def _check(self) -> None:
        if self.is_abandoned:
            raise StoreError(
                f"{self._shown} was opened by the process {self._owner}, from which this one was forked: open the "
                "store after the fork, in one process, or use a server, which many processes can share"
            )

    def _lock_files(self) -> list[int]:
        return [] if self._lock_file is None else [self._lock_file.fileno()]


def _file_name(name: str) -> str:
    """Return the name of a collection's folder: percent-encoded, so that any name of a collection is possible.

    It never begins with a dot, as the names of folders do that are being created or deleted.
    An empty name is an error: it would be that of the folder of all collections.
    """
    if not name:
        raise ValueError("the collection's name is empty: pass a name of at least one character")
    return re.sub(r"^\.", "%2E", quote(name, safe=" "))


def _alike(name: str) -> str:
    """Return what names have in common that a disk may take for the same: macOS and Windows ignore case."""
    return name.casefold().rstrip(". ")


def _is_open_elsewhere(shown: Path, holder: int | None) -> str:
    """Return the message for a folder that a process has locked."""
    if holder is not None and _has_ended(holder):
        # What it has started to build an index inherits the lock, and ends by itself.
        return (
            f"{shown} is open in another process: the one that opened it, {holder}, has ended, perhaps killed, and "
            "the process that builds its index still runs. Wait until that has ended, too. If the folder is shared "
            "with other machines or containers, close it there"
        )
    known = "" if holder is None else f" (its id is {holder})"
    return (
        f"{shown} is open in another process{known}: close that one first, or use a Qdrant server, which many "
        "processes can share"
    )


def _has_ended(process_id: int) -> bool:
    """Return whether there is no process of this id; False where that is not known."""
    if os.name != "posix" or process_id == 0:  # on Windows, `os.kill` ends processes
        return False
    try:
        os.kill(process_id, 0)  # sends no signal
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _copy(path: Path, shown: Path) -> Path:
    """Copy a folder that cannot be written into a temporary one, because Edge writes files even to search."""
    if not (path / COLLECTIONS).is_dir():
        raise StoreError(f"there is no store in {shown}, and none can be created: this process cannot write the folder")
    try:
        copy = Path(tempfile.mkdtemp(prefix="qwen3vl-store-"))
    except OSError as error:
        raise _no_room(shown, error) from error
    try:
        shutil.copytree(path / COLLECTIONS, copy / COLLECTIONS)
        for entry in (copy, *copy.rglob("*")):
            entry.chmod(0o700 if entry.is_dir() else 0o600)
    except BaseException as error:
        shutil.rmtree(copy, ignore_errors=True)
        if isinstance(error, OSError):
            raise _no_room(shown, error) from error
        raise
    return copy


def _no_room(shown: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{shown} cannot be written by this process, and to search it, a temporary copy is needed, which cannot be "
        f"made ({error}): set TMPDIR to a folder that can be written and has room for it"
    )

"""Folders of embedded stores: whether they can be written, their locks, and a view of those that cannot be written."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from qwen3vl.errors import StoreError

Client = TypeVar("Client")
_links: weakref.WeakKeyDictionary[Any, weakref.finalize[..., Any]] = weakref.WeakKeyDictionary()
"""What removes the temporary folder of a client."""


def check_folder(path: Path) -> None:
    """Check that a path is a folder, or that one can be created there.

    Args:
        path: The path.

    Raises:
        StoreError: It, or a folder above it, is a file or a link that leads to nothing.
    """
    for existing in (path, *path.parents):
        if existing.is_dir():
            return
        if existing.is_symlink() and not existing.exists():
            raise StoreError(f"{existing} is a link to a place that does not exist: mend the link, or mount the disk")
        if existing.exists() and not existing.is_dir():  # another process may have created the folder just now
            raise StoreError(f"{existing} is a file, and a store is a folder: name another folder")


def is_read_only(folder: Path) -> bool:
    """Return whether this process cannot write an existing folder or one of the files directly in it.

    Args:
        folder: The folder.

    Returns:
        True for folders on read-only file systems, or whose permissions forbid writing.
    """
    if not folder.is_dir():
        return False
    # Another process may delete temporary files of the folder meanwhile.
    return any(not os.access(path, os.W_OK) and path.exists() for path in (folder, *folder.iterdir()))


def lock_folder(file: Path, shown: Path, in_use: Callable[[int | None], str]) -> IO[str]:
    """Lock a folder for as long as the returned file is open in this process, or in one that inherits it.

    On Windows no process inherits a lock. The caller's distribution has to require portalocker, which the core does
    not.

    Args:
        file: The file in the folder to lock, which is created if it does not exist. This process's id is written to it
            if there is space.
        shown: The folder as messages name it.
        in_use: Returns the message if another process has locked the file: it gets that one's id; None if not known.

    Returns:
        The open file.

    Raises:
        StoreError: Another process has locked the file, or its file system has no locks.
        OSError: The file cannot be created.
    """
    import portalocker  # here, because the import fails where no folder can be written

    stream = file.open("a+", encoding="ascii")
    try:
        portalocker.lock(stream, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.exceptions.AlreadyLocked as error:
        holder = ""
        with stream, suppress(OSError, ValueError):  # on Windows, nobody else can read a file that is locked
            stream.seek(0)
            holder = stream.read(20).strip()
        raise StoreError(in_use(int(holder) if holder.isdecimal() else None)) from error
    except portalocker.exceptions.LockException as error:
        stream.close()
        raise StoreError(
            f"{shown} cannot be locked ({error.__cause__ or error}): use a folder on a local disk, or, "
            "for a store, a server"
        ) from error
    except BaseException:
        stream.close()
        raise
    with suppress(OSError):  # on a full disk, the folder can be read, and others learn no process
        os.ftruncate(stream.fileno(), 0)
        os.write(stream.fileno(), f"{os.getpid()}\n".encode())
    return stream


def open_linked(folder: Path, open_client: Callable[[Path], Client], *, without: Collection[str]) -> Client:
    """Open a client in a new temporary folder with symbolic links to the entries of a folder.

    Database engines write lock files even if they only read. They do so in the temporary folder, which is removed by
    `remove_links`, with the client, at the end of the process, or if the client cannot be opened.

    Args:
        folder: The folder.
        open_client: Opens a client in the temporary folder.
        without: Names of entries to leave out.

    Returns:
        The client.

    Raises:
        StoreError: No temporary folder can be created.
    """
    try:
        links = Path(tempfile.mkdtemp(prefix="qwen3vl-store-"))
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written by this process, and to search it, a temporary folder is needed, which cannot "
            f"be created ({error}): set TMPDIR to a folder that can be written"
        ) from error
    try:
        for entry in folder.iterdir():
            if entry.name not in without:
                (links / entry.name).symlink_to(entry.resolve())
        client = open_client(links)
    except BaseException:
        shutil.rmtree(links, ignore_errors=True)
        raise
    _links[client] = weakref.finalize(client, shutil.rmtree, links, ignore_errors=True)
    return client


def remove_links(client: Any) -> None:
    """Remove the temporary folder of a client that `open_linked` has returned and that is closed.

    Args:
        client: Any client.
    """
    remove = _links.pop(client, None)
    if remove is not None:
        remove()

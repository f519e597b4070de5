"""Files, folders and renames that a power cut does not undo."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path


def write_file(file: Path, content: bytes | Iterable[bytes]) -> None:
    """Replace a file by a complete one, which is on the disk when this returns. A power cut leaves the old or new one.

    Args:
        file: The file. A process that is killed may leave another one beside it, with `.tmp` after its name.
        content: Its new content, or the parts of it, which are not kept in memory.
    """
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.writelines((content,) if isinstance(content, bytes) else content)
        stream.flush()
        os.fsync(stream.fileno())
    rename(temporary, file)


def rename(old: Path, new: Path) -> None:
    """Rename a file or folder; the new name is on the disk when this returns.

    Args:
        old: The file or folder. Its content is not written to the disk here.
        new: Its new path, on the same file system. A file that has it is replaced.
    """
    old.replace(new)
    sync_folder(new.parent)


def make_folder(folder: Path, mode: int = 0o777) -> None:
    """Create a folder, and those above it that do not exist; their names are on the disk when this returns.

    Args:
        folder: The folder, which may exist.
        mode: Its permissions, from which the process's umask is subtracted.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode, parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Write the names of a folder's entries to the disk, where the file system can.

    Args:
        folder: The folder.
    """
    if os.name != "posix":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # the file system cannot do it for folders
            raise
    finally:
        os.close(descriptor)

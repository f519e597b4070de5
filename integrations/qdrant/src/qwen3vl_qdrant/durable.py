"""Writing files so that a power cut leaves either the old or the new content."""

from __future__ import annotations

import os
from pathlib import Path


def write_file(file: Path, content: bytes) -> None:
    """Replace a file by a complete one, which is on the disk when this returns.

    Args:
        file: The file.
        content: Its new content.
    """
    temporary = file.with_name(file.name + ".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Write the names of a folder's entries to the disk.

    Args:
        folder: The folder.
    """
    if os.name != "posix":  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

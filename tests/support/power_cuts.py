"""What is left after a power cut, by the calls of `fsync`."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest


class SyncedNames:
    """Notes the names in each folder, and the size of each file, when it is written to the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._names: dict[int, dict[str, int]] = {}
        self._sizes: dict[int, int] = {}
        fsync = os.fsync

        def note_and_sync(descriptor: int) -> None:
            fsync(descriptor)
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                self._names[status.st_ino] = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
            else:
                self._sizes[status.st_ino] = status.st_size

        monkeypatch.setattr(os, "fsync", note_and_sync)

    def survives(self, file: Path, below: Path) -> bool:
        """Return whether a file and all folders above it, up to one that is there before, are on the disk."""
        if self._sizes.get(file.stat().st_ino) != file.stat().st_size:
            return False
        paths = (file, *file.parents)
        return all(
            self._names.get(path.parent.stat().st_ino, {}).get(path.name) == path.stat().st_ino
            for path in paths[: paths.index(below)]
        )

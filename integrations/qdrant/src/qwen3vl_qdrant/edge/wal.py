"""The write-ahead log (WAL) of a shard: what makes points durable before the shard's segments are flushed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from qwen3vl.durable import sync_folder

FSYNC_WRITES_MAPS = sys.platform == "linux"
"""Whether `fsync` writes what a process has changed in a file by a memory map, as Edge does; POSIX does not say so."""
MAX_FULL_FILES = 2
"""So many files of the log, of 32 MiB each, may become full between two flushes of the shard."""


class WriteAheadLog:
    """The files of a shard's log.

    Edge appends each change to its log, then changes the segments, both by memory maps. When a shard is opened after a
    crash, Edge applies the changes in the log that are not in the segments. So a change survives a power cut once the
    log is on the disk. A flush of the shard writes the segments as well, each of whose files it syncs, and takes
    several times as long; it is needed from time to time only, so that the log stays short.

    Args:
        shard: The folder of the shard.
    """

    def __init__(self, shard: Path) -> None:
        self._folder = shard / "wal"
        self._full_at_flush: set[str] | None = None
        """The full files when the shard was flushed. None before its first flush: what was done to its files when it
        was created or opened may not be on the disk, and is not in the log."""

    def sync(self) -> None:
        """Write all changes to the disk that were made before.

        Raises:
            OSError: A file cannot be written. A flush of the shard is due then: the system reports such an error once,
                and what was not written is a hole in the log, which hides the changes behind it.
        """
        try:
            while not self._sync_files():
                pass
            sync_folder(self._folder)
        except OSError:
            self._full_at_flush = None
            raise

    def is_flush_due(self) -> bool:
        """Return whether the shard has to be flushed, so that little of the log is applied again after a crash.

        Returns:
            Whether `MAX_FULL_FILES` of the log have become full since `mark_flushed`, or it was not called since the
            shard was opened or since an error.
        """
        return self._full_at_flush is None or len(self._full_files() - self._full_at_flush) >= MAX_FULL_FILES

    def mark_flushed(self) -> None:
        """Record that the shard was flushed."""
        self._full_at_flush = self._full_files()

    def _sync_files(self) -> bool:
        """Write the files to the disk; returns whether all that were listed were there."""
        for file in self._folder.iterdir():
            try:
                descriptor = os.open(file, os.O_RDONLY)
            except FileNotFoundError:  # a full file was renamed meanwhile, or one that is not needed was removed
                return False
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return True

    def _full_files(self) -> set[str]:
        return {file.name for file in self._folder.glob("closed-*")}

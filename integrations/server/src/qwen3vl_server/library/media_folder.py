"""The folder with the files that clients have uploaded: for each source a folder, and in it the file by its content.

files/3f/3f1c…/9a0b….png     the file of a source, whose name is hashed: names of clients are no paths
incoming/                    uploads that are arriving
jobs/                        ingestions that are not finished

These are the folders of one collection; `qwen3vl_server.library.media_owner` says where those of others are.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath
from shutil import disk_usage
from types import TracebackType
from typing import IO, Self

from qwen3vl.durable import make_folder, rename
from qwen3vl.hashing import text_digest
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.media_owner import MediaOwner, claim_folder
from qwen3vl_server.library.media_types import HEAD_BYTES

_MAX_INCOMING_AGE_S = 24 * 3600
_FULL_DISK = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}


class MediaFolder:
    """The folder.

    One server at a time can have the files of a collection open.

    Args:
        path: Its path; it is created if it does not exist.
        owner: The collection whose documents show the files.

    Attributes:
        path: Its absolute path, without symbolic links.
        jobs: The folder of the collection's ingestions that are not finished.

    Raises:
        StoreError: Another server uses it, it belongs to a collection of this name in another store, or it cannot be
            locked.
        OSError: It cannot be created.
    """

    def __init__(self, path: Path, owner: MediaOwner) -> None:
        make_folder(path)
        self.path = path.resolve()
        own, self._lock = claim_folder(self.path, owner)
        self.jobs = own / "jobs"
        self._files, self._incoming = own / "files", own / "incoming"
        if self._lock is None:  # it can only be read
            return
        for folder in (self.jobs, self._files, self._incoming):
            make_folder(folder, 0o700)
        oldest = time.time() - _MAX_INCOMING_AGE_S
        for file in self._incoming.iterdir():  # a server that was killed has left them
            if file.stat().st_mtime < oldest:
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Let other servers use it; doing so again does nothing."""
        if self._lock is not None:
            self._lock.close()

    def require_space(self, size: int) -> None:
        """Check that there is space on the disk.

        Args:
            size: How many bytes may be needed.

        Raises:
            RequestError: There is less: status 507.
        """
        if disk_usage(self.path).free < size:
            raise _full_disk()

    def receive(self) -> IncomingFile:
        """Return a new file to write an upload into."""
        return IncomingFile(self._incoming)

    def folder_of(self, source: str) -> Path:
        """Return the folder of a source's files.

        Args:
            source: Any text.

        Returns:
            The folder, which may not exist.
        """
        digest = text_digest(source)
        return self._files / digest[:2] / digest

    def keep(self, incoming: IncomingFile, source: str, suffix: str) -> Path:
        """Move a file that has arrived to the folder of its source. It is durable when this returns.

        Args:
            incoming: The file.
            source: Its source.
            suffix: Its suffix, by which a `Loader` knows its type.

        Returns:
            The file's path.
        """
        folder = self.folder_of(source)
        make_folder(folder, 0o700)
        return incoming.move_to(folder / f"{incoming.digest}{suffix}")

    def prune(self, source: str, references: Iterable[str]) -> None:
        """Delete the files of a source that its documents do not show.

        Args:
            source: The source.
            references: References of all its documents: paths, perhaps with a fragment.
        """
        folder = self.folder_of(source)
        if not folder.is_dir():
            return
        # By name, which is the digest of the content: a reference has the path that the folder had at the ingestion.
        used = {PurePath(path).name for reference in references for path in (reference, reference.rpartition("#")[0])}
        files = list(folder.iterdir())
        for file in files:
            if file.name not in used:
                file.unlink(missing_ok=True)
        if used.isdisjoint(file.name for file in files):
            folder.rmdir()


@contextmanager
def full_disk_errors() -> Iterator[None]:
    """Return a context in which files are written that a client has sent.

    Yields:
        Nothing.

    Raises:
        RequestError: The disk is full, or the server's quota of it: status 507.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL_DISK:
            raise _full_disk() from error
        raise


def _full_disk() -> RequestError:
    return RequestError(507, "the disk of the server is nearly full; delete documents, or tell its operator")


class IncomingFile:
    """A file that is arriving. As a context manager, it is deleted at the end, unless it was moved.

    Args:
        folder: Where it is written.
    """

    def __init__(self, folder: Path) -> None:
        descriptor, name = tempfile.mkstemp(dir=folder)
        self._file: IO[bytes] = os.fdopen(descriptor, "wb")
        self._path = Path(name)
        self._hash = hashlib.blake2b(digest_size=16)
        self.head = b""

    @property
    def digest(self) -> str:
        """Digest of what was written, as `qwen3vl.hashing.file_digest` returns it."""
        return self._hash.hexdigest()

    def write(self, data: bytes) -> None:
        """Append bytes.

        Args:
            data: The bytes.
        """
        if len(self.head) < HEAD_BYTES:
            self.head = (self.head + data)[:HEAD_BYTES]
        self._hash.update(data)
        self._file.write(data)

    def complete(self) -> None:
        """Write the file to the disk and close it. Doing so again does nothing."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def move_to(self, path: Path) -> Path:
        """Move the file; it is durable when this returns.

        Args:
            path: The new path.

        Returns:
            The path.
        """
        self.complete()
        rename(self._path, path)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what is not on the disk yet finds no place there, and is not needed
            self._file.close()
        self._path.unlink(missing_ok=True)

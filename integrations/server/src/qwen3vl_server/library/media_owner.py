"""Which collection the files of a folder of uploads belong to. One server at a time uses them.

The folder itself belongs to the first collection that was served with it; each other collection has a folder
`collections/1f3a…` in it, by the digest of its name. In each are `owner.json` and `.lock`, which the server locks.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from qwen3vl.durable import make_folder, write_file
from qwen3vl.errors import StoreError
from qwen3vl.hashing import text_digest
from qwen3vl.stores.folders import is_read_only, lock_folder

log = logging.getLogger(__name__)

_LOCK = ".lock"
_OWNER = "owner.json"


@dataclass(frozen=True, slots=True)
class MediaOwner:
    """A collection whose documents show uploaded files.

    Attributes:
        collection: Its name.
        database: Name of the database that has it, such as `"Qdrant"`.
        location: Where the database is: a URL, or the path of a folder from the folder of uploads, so that both can be
            moved together. Empty if it is not known.
    """

    collection: str
    database: str
    location: str = ""

    def __str__(self) -> str:
        place = f" in {self.location}" if self.location else ""
        return f"the collection {self.collection!r} of {self.database}{place}"

    def may_be(self, other: MediaOwner) -> bool:
        """Return whether two descriptions are of one collection, as far as both locations are known.

        Args:
            other: The other description.

        Returns:
            False if they differ.
        """
        is_same_place = not (self.location and other.location) or self.location == other.location
        return (self.collection, self.database) == (other.collection, other.database) and is_same_place


def claim_folder(path: Path, owner: MediaOwner) -> tuple[Path, IO[str] | None]:
    """Lock the folder that has the files of a collection, and take it for the collection if it is nobody's yet.

    Args:
        path: The folder of uploads, which exists.
        owner: The collection.

    Returns:
        That folder or one in it, and the file whose closing unlocks it; None if it can only be read, and is not locked.

    Raises:
        StoreError: Another server uses it, it belongs to a collection of this name in another store, or it cannot be
            locked.
        OSError: It cannot be written.
    """
    folder = _own_folder(path, owner)
    if is_read_only(path):  # a mounted copy, for example, whose files are shown
        _check(folder, owner)
        return folder, None
    make_folder(folder, 0o700)
    try:
        lock = lock_folder(folder / _LOCK, folder, lambda holder: _is_used(folder, holder))
    except StoreError:
        if _own_folder(path, owner) != folder:  # another server has just taken it for its collection
            return claim_folder(path, owner)
        raise
    try:
        if _own_folder(path, owner) != folder:
            lock.close()
            return claim_folder(path, owner)
        stored = _check(folder, owner)
        if stored is None:
            _report_jobs(folder, owner)
        if stored is None or (owner.location and not stored.location):
            write_file(folder / _OWNER, json.dumps(asdict(owner)).encode())
    except BaseException:
        lock.close()
        raise
    return folder, lock


def _own_folder(path: Path, owner: MediaOwner) -> Path:
    """Return where the files of a collection are, or would be, by what `path` says now."""
    stored = _read_owner(path)
    is_own = stored is None or stored.collection == owner.collection
    return path if is_own else path / "collections" / text_digest(owner.collection)


def _check(folder: Path, owner: MediaOwner) -> MediaOwner | None:
    """Return what `_read_owner` returns; raise `StoreError` if the files are another collection's."""
    stored = _read_owner(folder)
    if stored is not None and not stored.may_be(owner):
        raise StoreError(
            f"{folder} has the uploads of {stored}, not of {owner}: name another folder for uploads, with --media. If "
            f"it is the same store, which has another place now, delete {folder / _OWNER}"
        )
    return stored


def _report_jobs(folder: Path, owner: MediaOwner) -> None:
    """Log that jobs of an earlier version, which did not record their collection, become those of this one."""
    num_jobs = sum(1 for _ in folder.glob("jobs/*.json"))
    if num_jobs:
        log.warning(
            "%s has %d uploads that an earlier version accepted and did not ingest, without a record of their "
            "collection: they are ingested into %s",
            folder,
            num_jobs,
            owner,
        )


def _read_owner(folder: Path) -> MediaOwner | None:
    """Return whose the files of a folder are; None if they are nobody's, or of an earlier version."""
    file = folder / _OWNER
    try:
        return MediaOwner(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{file} is damaged ({error}), so that it is not known which collection has the uploads of this folder: "
            "delete the file, and start the server of that collection first"
        ) from error


def _is_used(folder: Path, holder: int | None) -> str:
    process = "" if holder is None else f" (process {holder})"
    return f"{folder} is used by another server{process}: stop it, or name another folder for uploads, with --media"

"""Embedded Qdrant in a folder: opening it, also if it is read-only or its metadata file is damaged.

The folder has a file `meta.json`, which describes the collections, and `collection/NAME/storage.sqlite`, which has the
points of one. qdrant-client reads them before it locks the folder, and takes an empty `storage.sqlite` for a
collection without points.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from qdrant_client import QdrantClient
from qdrant_client.local.persistence import CollectionPersistence

from qwen3vl.durable import write_file
from qwen3vl.errors import StoreError
from qwen3vl.stores.folders import check_folder, is_read_only, lock_folder, open_linked

logger = logging.getLogger(__name__)
_METADATA = "meta.json"
_BACKUP = "meta.json.backup"
_DAMAGED = "meta.json.damaged"
_LOCK = ".lock"
"""The file that qdrant-client locks."""
_STORAGE = "storage.sqlite"
_ATTEMPTS = 5


def is_local_mode(folder: Path) -> bool:
    """Return whether qdrant-client's local mode has made a folder.

    Args:
        folder: The folder; it may not exist.

    Returns:
        Whether it has the files of that mode, damaged ones too.
    """
    return any((folder / name).exists() for name in (_METADATA, _BACKUP, "collection"))


def open_folder(folder: str) -> tuple[QdrantClient, bool]:
    """Open an embedded Qdrant; create it if it does not exist.

    A damaged `meta.json` is restored from the copy that `back_up` made.

    Args:
        folder: The folder.

    Returns:
        The client, and whether the folder can only be read.

    Raises:
        StoreError: Another process has the folder open, or a file is damaged; the message says which, and what to do.
    """
    path = Path(folder)
    check_folder(path)
    if is_read_only(path):
        return _open_read_only(path), True
    path.mkdir(parents=True, exist_ok=True)
    for _ in range(_ATTEMPTS):
        with _locked(path):
            _restore_metadata(path)
            _check_storages(path)
            before = _file_states(path)
        client = _open(path, path)
        if _file_states(path) == before:
            back_up(path)
            return client, False
        client.close()  # another process wrote to the folder while this one read it
    raise StoreError(_open_elsewhere(path))


def back_up(folder: Path) -> None:
    """Copy `meta.json`, which has the recipes of the collections, beside itself, if it has changed.

    Args:
        folder: The folder of an embedded Qdrant.
    """
    backup = folder / _BACKUP
    try:
        content = (folder / _METADATA).read_bytes()
        if not backup.exists() or backup.read_bytes() != content:
            write_file(backup, content)
    except OSError as error:  # a full disk, for example, on which the store can still be searched
        logger.warning("%s was not written, from which a damaged %s would be restored: %s", backup, _METADATA, error)


def storage_of(folder: Path, collection: str) -> Path:
    """Return the file that has the points of a collection.

    Args:
        folder: The folder of an embedded Qdrant.
        collection: Name of the collection.

    Returns:
        The path; the file may not exist.
    """
    return folder / "collection" / collection / _STORAGE


def _open(path: Path, shown: Path) -> QdrantClient:
    try:
        return QdrantClient(path=str(path))
    except Exception as error:  # of SQLite, of pickle, of pydantic
        if "already accessed" in str(error):
            raise StoreError(_open_elsewhere(shown)) from error
        for name in _collections(path):
            _check_readable(storage_of(path, name), shown)
        raise StoreError(f"the store {shown} cannot be opened: {error}") from error


def _open_read_only(path: Path) -> QdrantClient:
    """Open a folder that cannot be written through a temporary one, where qdrant-client writes its lock file."""
    if not (path / _METADATA).exists():
        raise StoreError(f"there is no store in {path}, and none can be created: this process cannot write the folder")
    if _read_metadata(path / _METADATA) is None:
        raise StoreError(
            f"{path / _METADATA} is damaged, and cannot be restored because this process cannot write the folder: "
            "open the store once where it can be written"
        )
    _check_storages(path)
    return open_linked(path, lambda links: _open(links, path), without=(_LOCK,))


def _open_elsewhere(path: Path) -> str:
    return f"{path} is open in another process: close that one first, or use a server"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock that qdrant-client holds while a folder is open; raise `StoreError` if that cannot be had."""
    with lock_folder(path / _LOCK, path, lambda _: _open_elsewhere(path)):
        yield


def _file_states(path: Path) -> dict[Path, tuple[int, int]]:
    files = [path / _METADATA, *sorted(path.glob(f"collection/*/{_STORAGE}"))]
    return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _restore_metadata(path: Path) -> None:
    """Write `meta.json` if it is missing or damaged; keep the damaged file under another name."""
    metadata = path / _METADATA
    if _read_metadata(metadata) is not None:
        return
    if metadata.exists() and metadata.stat().st_size:
        metadata.replace(path / _DAMAGED)
    backup = _read_metadata(path / _BACKUP) or {}
    stored = {storage.parent.name for storage in path.glob(f"collection/*/{_STORAGE}")}
    restored = {
        "collections": {name: config for name, config in backup.get("collections", {}).items() if name in stored},
        "aliases": {alias: name for alias, name in backup.get("aliases", {}).items() if name in stored},
        "text_indexes": {name: index for name, index in backup.get("text_indexes", {}).items() if name in stored},
    }
    lost = sorted(stored - set(restored["collections"]))
    write_file(metadata, json.dumps(restored).encode())
    if restored["collections"]:
        logger.warning("%s was missing or damaged, and was restored: %s", metadata, ", ".join(restored["collections"]))
    if lost:
        logger.warning(
            "%s was missing or damaged. The points of these collections are still in the folder: %s. To get them back, "
            "index the same documents with the same model again: vectors that are stored are not computed again",
            metadata,
            ", ".join(lost),
        )


def _read_metadata(file: Path) -> dict[str, Any] | None:
    """Return the content of a `meta.json`; None if there is none, or it is damaged."""
    try:
        content = json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    complete = isinstance(content, dict) and all(
        isinstance(content.get(key), dict) for key in ("collections", "aliases")
    )
    return content if complete else None


def _collections(path: Path) -> list[str]:
    return list((_read_metadata(path / _METADATA) or {"collections": ()})["collections"])


def _check_storages(path: Path) -> None:
    """Raise `StoreError` if a collection's file has become empty, which SQLite takes for a database without points."""
    for name in _collections(path):
        file = storage_of(path, name)
        if not file.exists() or file.stat().st_size <= 1:
            raise StoreError(
                f"{file} is missing or empty, and with it all points of {name!r}: restore it from a backup, "
                f"{_how_to_index_again(path, file)}"
            )


def _check_readable(file: Path, shown: Path) -> None:
    """Raise `StoreError` if the points of a collection cannot be read."""
    try:
        with closing(CollectionPersistence(str(file.parent))) as storage:
            for _ in storage.load():
                pass
    except Exception as error:
        raise StoreError(
            f"{storage_of(shown, file.parent.name)} cannot be read ({error}): restore it from a backup, save what is "
            f"readable with `sqlite3 {_STORAGE} .recover | sqlite3 recovered.sqlite`, "
            f"{_how_to_index_again(shown, file)}"
        ) from error


def _how_to_index_again(path: Path, file: Path) -> str:
    name = file.parent.name
    return (
        f"or move {storage_of(path, name).parent} away, run "
        f"QdrantClient(path={str(path)!r}).delete_collection({name!r}), and index the documents again"
    )

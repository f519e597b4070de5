"""One collection in a folder: a shard of Edge, and its description in a file beside it."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

import qdrant_edge as edge
from pydantic import ValidationError
from qdrant_client import models

from qwen3vl.durable import rename, sync_folder, write_file
from qwen3vl.errors import StoreError
from qwen3vl_qdrant.edge import configs
from qwen3vl_qdrant.edge.configs import dense_vectors, to_edge_config
from qwen3vl_qdrant.edge.indexing import IndexBuildError, build_index
from qwen3vl_qdrant.edge.page_cache import ReadAhead, read_quantized_vectors
from qwen3vl_qdrant.edge.wal import FSYNC_WRITES_MAPS, WriteAheadLog

DESCRIPTION = "collection.json"
"""The file with name, vectors and metadata of the collection. It is written when the collection is created."""
_SHARD = "shard"
_NUM_DELETED = "deleted"
"""The file with the number of points that were deleted since the last build. It is missing if there are none."""
_FORMAT = 1
_FLOAT_BYTES = 4
_MIN_DELETED = 1000
"""Minimum number of deleted points, beside a fifth of all, for which the index is built to free their space."""
_INVALID = (
    *("Wrong input", "Validation failed", "Vector dimension error", "Malformed payload", "Not existing vector"),
    "No range index",
)
"""How Edge's messages begin if a request is not valid."""


def create_files(path: Path, name: str, description: models.CreateCollection) -> None:
    """Write a collection without points, completely or not at all.

    Args:
        path: Its folder, which does not exist.
        name: Its name.
        description: Vectors, index and metadata.

    Raises:
        NotImplementedError: The description has something that Edge does not have.
    """
    config = to_edge_config(description)
    temporary = path.with_name(f".new-{path.name}")
    if temporary.exists():  # left by a process that was killed
        shutil.rmtree(temporary)
    (temporary / _SHARD).mkdir(parents=True)
    shard = edge.EdgeShard.create(str(temporary / _SHARD), config)
    shard.close()
    content = {"format": _FORMAT, "name": name, **description.model_dump(mode="json", exclude_none=True)}
    write_file(temporary / DESCRIPTION, json.dumps(content, indent=1).encode())
    sync_folder(temporary)
    rename(temporary, path)


def read_name(path: Path) -> str | None:
    """Return the name that a collection was created with.

    Args:
        path: Its folder.

    Returns:
        The name; None if there is no collection, or its description is damaged.
    """
    try:
        name = json.loads((path / DESCRIPTION).read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


class EdgeCollection:
    """An open collection. Any number of threads may use one object at once: their calls run one after the other.

    Args:
        path: Its folder.
        shown: The folder as messages name it.
        lock_files: Returns the descriptors of the open files by which this process holds the lock on the store.

    Raises:
        StoreError: A file is damaged or missing.
    """

    def __init__(self, path: Path, shown: Path, lock_files: Callable[[], list[int]]) -> None:
        self._path = path
        self._shown = shown
        self._lock_files = lock_files
        self._lock = RLock()
        self.description = self._read_description()
        self._is_closed = False
        self._read_ahead = ReadAhead(path / _SHARD)
        self._wal: WriteAheadLog
        self._shard: edge.EdgeShard | None = self._load()
        self._num_deleted = self._read_deleted()
        self._num_left = 0
        """Points that the last build left without an index, in segments that are too small for one."""
        self._num_failed = 0
        """Points without an index when the last build failed."""

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the shard.

        Args:
            method: Its name.
            *args: Its arguments.

        Returns:
            What it returns.

        Raises:
            ValueError: Edge rejects the request.
            RuntimeError: Edge fails.
        """
        with self._lock:
            if self._is_closed:
                raise RuntimeError(f"the collection in {self._shown} is closed")
            if self._shard is None:  # it could not be opened again after a build: too many files were open, for example
                self._shard = self._load()
            if method == "query_batch":
                self._read_ahead.start()
            return _translate_errors(getattr(self._shard, method), *args)

    def update(self, operation: edge.UpdateOperation) -> None:
        """Change points. When this returns, the change survives the end of the process; after `sync`, a power cut too.

        Args:
            operation: The change.
        """
        self.call("update", operation)

    def sync(self) -> None:
        """Make all changes survive a power cut: write the log to the disk, or flush the whole shard if that is due.

        On other systems than Linux it is always flushed.
        """
        if FSYNC_WRITES_MAPS and not self._wal.is_flush_due():
            self._wal.sync()
        else:
            self.flush()

    def flush(self) -> None:
        """Write all changes from the caches of the operating system to the disk, in the log and in the segments."""
        with self._lock:  # `build_index` opens the shard again, which is a shard that was not flushed
            self.call("flush")
            self._wal.mark_flushed()

    def count_deleted(self, num_points: int) -> None:
        """Record that so many points were deleted: `build_index` frees their space once there are many."""
        with self._lock:
            self._num_deleted += num_points
            with suppress(OSError):  # it says only when to build: the points are deleted
                (self._path / _NUM_DELETED).write_text(str(self._num_deleted))

    def num_unindexed(self) -> int:
        """Return the number of points that are not in the index, so that searches compare them one by one."""
        info = self.call("info")
        num_vectors = len(dense_vectors(self.description.vectors)) or 1
        # `indexed_vectors_count` includes every sparse vector from the start. Their number is subtracted as Edge's
        # estimate (exact=False), which counts in the same way.
        have_sparse = [
            edge.Filter(must=[edge.HasVectorCondition(name)]) for name in self.description.sparse_vectors or ()
        ]
        num_sparse: int = sum(self.call("count", edge.CountRequest(exact=False, filter=has)) for has in have_sparse)
        return max(0, int(info.points_count) - (int(info.indexed_vectors_count) - num_sparse) // num_vectors)

    def build_index(self, progress: Callable[[float], None] | None = None, *, min_points: int = 0) -> bool:
        """Index new points and free the space of deleted ones, if there are many of either. Other calls wait meanwhile.

        Args:
            progress: Called several times a second with the seconds that have passed.
            min_points: Minimum number of new points, if that is more than Edge's own minimum for an index. If it is not
                0, deleted points alone are no reason to build, and points whose build has failed count as old: a build
                that fails each time, because there is too little memory, is not repeated by each write.

        Returns:
            Whether there were, so that the index was built.

        Raises:
            StoreError: The shard cannot be opened again.
            IndexBuildError: The index cannot be built.
        """
        with self._lock:
            num_new = self.num_unindexed() - max(self._num_left, self._num_failed if min_points else 0)
            num_points = int(self.call("info").points_count)
            if num_new < max(min_points, self._min_indexed()) and (
                min_points or self._num_deleted < max(_MIN_DELETED, num_points // 5)
            ):
                return False
            self._close_shard()
            try:
                build_index(self._path / _SHARD, progress, keep_open=self._lock_files())
            except IndexBuildError:
                self._num_failed = self.num_unindexed()
                raise
            finally:
                if self._shard is None:
                    self._shard = self._load()
            self._num_left, self._num_failed, self._num_deleted = self.num_unindexed(), 0, 0
            with suppress(OSError):
                (self._path / _NUM_DELETED).unlink(missing_ok=True)
            return True

    def close(self) -> None:
        """Close the shard, which writes all changes to the disk."""
        with self._lock:
            self._is_closed = True
            self._close_shard()

    def _close_shard(self) -> None:
        self._read_ahead.stop()
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def abandon(self) -> None:
        """Drop the shard in a forked process without flushing it, because it belongs to the parent process."""
        if self._shard is not None:
            # One reference is never released: freeing the object would flush the parent's files.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._shard))
            _close_descriptors(self._path / _SHARD)
        self._shard = None
        self._is_closed = True

    def _min_indexed(self) -> int:
        """Return the number of points from which Edge builds an index for a segment."""
        sizes = [params.size for params in dense_vectors(self.description.vectors).values()]
        return configs.INDEXING_THRESHOLD_KB * 1024 // (_FLOAT_BYTES * max(sizes, default=1)) + 1

    def _load(self) -> edge.EdgeShard:
        path = self._path / _SHARD
        if not path.is_dir():
            raise StoreError(f"{self._shown / _SHARD} is missing, and with it all points: {self._way_out()}")
        read_quantized_vectors(path)
        try:
            shard: edge.EdgeShard = _translate_errors(edge.EdgeShard.load, str(path))
        except (RuntimeError, ValueError) as error:
            if "WouldBlock" in str(error):
                raise StoreError(
                    f"{self._shown / _SHARD} is open in another process, perhaps one that builds its index or was "
                    "forked from this one: wait until it has ended"
                ) from error
            raise StoreError(f"{self._shown / _SHARD} cannot be opened ({error}): {self._way_out()}") from error
        self._wal = WriteAheadLog(path)
        self._read_ahead = ReadAhead(path)  # the files of an index that was built just now are not in the page cache
        return shard

    def _read_deleted(self) -> int:
        try:
            return int((self._path / _NUM_DELETED).read_text())
        except (OSError, ValueError):  # missing, or torn by a power cut
            return 0

    def _read_description(self) -> models.CreateCollection:
        file = self._path / DESCRIPTION
        try:
            content = json.loads(file.read_bytes())
            if content.pop("format") != _FORMAT:
                raise StoreError(f"{self._shown / DESCRIPTION} was written by a newer version: upgrade qwen3vl-qdrant")
            del content["name"]
            return models.CreateCollection(**content)
        except FileNotFoundError:
            reason = "is missing"
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError):
            reason = "is damaged"
        raise StoreError(
            f"{self._shown / DESCRIPTION} {reason}, which says what made the vectors of the collection: "
            f"{self._way_out()}"
        )

    def _way_out(self) -> str:
        return f"restore it from a backup, or move {self._shown} away and index the documents again"


def _translate_errors(call: Callable[..., Any], *args: Any) -> Any:
    """Call Edge, and raise its errors as `ValueError` or `RuntimeError`.

    It raises plain `Exception`, or, if its Rust code panics, a `PanicException`, which is no `Exception`.
    """
    try:
        return call(*args)
    except BaseException as error:
        if type(error).__name__ != "PanicException" and type(error) is not Exception:
            raise
        kind = ValueError if str(error).startswith(_INVALID) else RuntimeError
        raise kind(str(error).removeprefix("Service runtime error: ")) from error


def _close_descriptors(path: Path) -> None:
    """Close the descriptors that a forked process has inherited of files below a folder.

    A file stays locked until every process that has its descriptor has closed it.
    """
    descriptors = Path("/proc/self/fd")
    if not descriptors.is_dir():
        return
    for descriptor in list(descriptors.iterdir()):
        try:
            if descriptor.readlink().is_relative_to(path):
                os.close(int(descriptor.name))
        except OSError:  # closed meanwhile, as the descriptor by which /proc/self/fd was listed
            continue

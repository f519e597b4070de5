"""Copies of files in object stores, for the batches of a process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Self

from fsspec.implementations.local import LocalFileSystem

from qwen3vl.errors import InputError, MediaError, PolicyError
from qwen3vl.media.policy import MediaPolicy
from qwen3vl_ray.objects import OBJECT_STORES, is_object, is_plain, open_filesystem, split_fragment

MAX_DOWNLOADS = 16
"""Maximum number of files that a batch downloads at once."""
MAX_KEPT_BYTES = 2**30
"""Default size of the copies that a process keeps for later batches."""
_MEDIA_KEYS = frozenset({"image", "video"})


@dataclass(slots=True, eq=False)
class _Copy:
    """A copy of a file; without a path until it is downloaded."""

    path: Path | None = None
    size: int = 0
    num_users: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Downloads:
    """Copies of files in object stores, in a folder for temporary files. A context manager.

    Copies are kept for later batches, because the pages of a PDF and the clips of a video are often in several. Beyond
    `max_kept_bytes`, those that were used least recently are deleted. Thread-safe.

    Args:
        policy: With `urls=False`, or with `hosts`, nothing is downloaded. With `folders`, the folder for temporary
            files has to be among them. With `folders`, or without `private_hosts`, only plain URLs of `OBJECT_STORES`
            are opened. `max_bytes` limits each file.
        max_kept_bytes: Maximum size of the copies that no batch uses.
    """

    def __init__(self, policy: MediaPolicy, max_kept_bytes: int = MAX_KEPT_BYTES) -> None:
        self._policy = policy
        self._max_kept_bytes = max_kept_bytes
        self._folder: TemporaryDirectory[str] | None = None
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._numbers = count()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete all copies. Without it, they are deleted when the object or the process ends."""
        with self._lock:
            self._copies.clear()
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def batch(self) -> BatchDownloads:
        """Return the copies that a batch uses, which stay until its context ends."""
        return BatchDownloads(self)

    def acquire(self, url: str) -> Path:
        """Download a file, unless there is a copy of it, and keep it until `release`.

        Args:
            url: Its URL, without a fragment.

        Returns:
            The copy, with the suffix of the URL.

        Raises:
            MediaError: It cannot be downloaded, or the policy does not allow it.
        """
        with self._lock:
            copy = self._copies.setdefault(url, _Copy())
            self._copies.move_to_end(url)
            copy.num_users += 1
        try:
            with copy.lock:  # another batch may be downloading it
                if copy.path is None:
                    copy.path = self._download(url)
                    copy.size = copy.path.stat().st_size
                return copy.path
        except BaseException as error:
            self.release(url)
            if isinstance(error, MediaError) or not isinstance(error, Exception):
                raise
            raise MediaError(  # libraries of stores raise anything
                f"{url} cannot be downloaded: {type(error).__name__}: {error}; check the URL and the credentials"
            ) from error

    def release(self, url: str) -> None:
        """Allow that a copy is deleted.

        Args:
            url: What was passed to `acquire`.
        """
        with self._lock:
            copy = self._copies.get(url)
            if copy is None:
                return  # closed meanwhile
            copy.num_users -= 1
            if copy.path is None and not copy.num_users:  # it could not be downloaded, and is tried again
                del self._copies[url]
            kept = sum(each.size for each in self._copies.values() if not each.num_users)
            for name, each in list(self._copies.items()):
                if kept <= self._max_kept_bytes:
                    break
                if not each.num_users and each.path is not None:
                    each.path.unlink(missing_ok=True)
                    kept -= each.size
                    del self._copies[name]

    def _download(self, url: str) -> Path:
        folder = self._open_folder()
        self._check_allowed(url, folder)
        filesystem, name = open_filesystem(url)
        if isinstance(filesystem, LocalFileSystem):
            self._policy.check_path(name)
        self._check_size(url, filesystem.size(name) or 0)
        path = Path(folder) / f"{next(self._numbers)}{PurePosixPath(name).suffix}"
        try:
            filesystem.get_file(name, str(path))
            self._check_size(url, path.stat().st_size)  # not every store says it before
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path

    def _open_folder(self) -> str:
        with self._lock:
            if self._folder is None:
                self._folder = TemporaryDirectory(prefix="qwen3vl-ray-")
            return self._folder.name

    def _check_allowed(self, url: str, folder: str) -> None:
        policy = self._policy
        if not policy.urls:
            raise PolicyError(f"{url} is not downloaded: the media policy forbids URLs (MediaPolicy.urls)")
        if policy.hosts is not None:
            raise PolicyError(
                f"{url} is not downloaded: the media policy allows some hosts only (MediaPolicy.hosts), and an object "
                "store is none"
            )
        if policy.folders is not None:
            try:
                policy.check_path(folder)
            except PolicyError as error:
                raise PolicyError(
                    f"{url} is not downloaded to {folder}: {error}, such as that for temporary files"
                ) from error
        # Others read files and addresses of this machine, as zip://page.png::/srv/archive.zip and
        # simplecache://::http://127.0.0.1/ do.
        if (policy.folders is not None or not policy.private_hosts) and not is_plain(url):
            raise PolicyError(
                f"{url} is not downloaded: it may name an address of this network, or a file. The media policy allows "
                f"only plain URLs of {', '.join(sorted(OBJECT_STORES))}, whose servers are set in the environment of "
                "the nodes (AWS_ENDPOINT_URL for S3). MediaPolicy(private_hosts=True) without folders allows others"
            )

    def _check_size(self, url: str, size: int) -> None:
        if size > self._policy.max_bytes:
            raise PolicyError(
                f"{url} has {size} bytes and the media policy allows {self._policy.max_bytes} (MediaPolicy.max_bytes)"
            )


class BatchDownloads:
    """The copies that a batch uses. A context manager, which releases them.

    Args:
        downloads: Where they are kept.
    """

    def __init__(self, downloads: Downloads) -> None:
        self._downloads = downloads
        self._files: dict[str, Path | MediaError] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for url, file in self._files.items():
            if isinstance(file, Path):
                self._downloads.release(url)

    def fetch_all(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Download the files of inputs at once, for `localize`: a request of an object store takes long.

        Args:
            values: Inputs.
        """
        urls = {url for value in values for url in _object_urls(value)}
        if urls:
            with ThreadPoolExecutor(min(len(urls), MAX_DOWNLOADS)) as pool:
                list(pool.map(self._try_fetch, urls))

    def fetch(self, url: str) -> Path:
        """Download a file.

        Args:
            url: Its URL, without a fragment.

        Returns:
            The file, with the suffix of the URL.

        Raises:
            MediaError: It cannot be downloaded, or the policy does not allow it.
        """
        if url not in self._files:
            self._try_fetch(url)
        file = self._files[url]
        if isinstance(file, MediaError):
            raise file
        return file

    def _try_fetch(self, url: str) -> None:
        try:
            self._files[url] = self._downloads.acquire(url)
        except MediaError as error:
            self._files[url] = error

    def localize(self, value: Mapping[str, Any]) -> Mapping[str, Any] | InputError:
        """Return an input with the paths of downloaded files in place of URLs of object stores.

        Args:
            value: The input.

        Returns:
            The input, or why a file of it cannot be downloaded; a model takes that as the error of its item.
        """
        try:
            return {key: self._localize(each) if key in _MEDIA_KEYS else each for key, each in value.items()}
        except MediaError as error:
            return error

    def _localize(self, reference: Any) -> Any:
        if isinstance(reference, list):
            return [self._localize(each) for each in reference]
        if not is_object(reference):
            return reference
        url, fragment = split_fragment(reference)
        return f"{self.fetch(url)}{fragment}"


def _object_urls(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the URLs of object stores in an input, without fragments."""
    for key in _MEDIA_KEYS & value.keys():
        for reference in value[key] if isinstance(value[key], list) else [value[key]]:
            if is_object(reference):
                yield split_fragment(reference)[0]

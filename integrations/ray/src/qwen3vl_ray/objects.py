"""Files in object stores: s3://, gs://, hf:// and what else fsspec and PyArrow open."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, Self

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FileSystem

from qwen3vl.documents import LoadFailure
from qwen3vl.errors import InputError, MediaError, PolicyError
from qwen3vl.media.policy import MediaPolicy

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "oss", "local"})
"""Schemes of URLs that are opened under a policy with folders. The files of `local` are those of this machine."""
MAX_DOWNLOADS = 16
"""Maximum number of files that a batch downloads at once."""
_MEDIA_KEYS = frozenset({"image", "video"})
_SCHEME = re.compile(r"(?P<name>[a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_OPENED_BY_THE_CORE = frozenset({"http", "https", "file"})
_FRAGMENT = re.compile(r"#(?:page|t)=[\d.,]+$")


def is_object(reference: Any) -> bool:
    """Return whether a reference is the URL of a file in an object store.

    Args:
        reference: A reference of a medium, a path or URL.

    Returns:
        False for paths, and for http(s) and file URLs, which the models open themselves.
    """
    scheme = _SCHEME.match(reference) if isinstance(reference, str) else None
    return scheme is not None and scheme["name"].lower() not in _OPENED_BY_THE_CORE


def open_filesystem(url: str) -> tuple[Any, str]:
    """Open the file system of a URL or path: that of fsspec, or of PyArrow where that has no library for it.

    Args:
        url: The URL or path.

    Returns:
        A file system of fsspec, and the file's name in it.
    """
    try:
        filesystem, name = fsspec.core.url_to_fs(url)
    except ImportError:  # such as s3fs
        arrow, name = FileSystem.from_uri(url)
        filesystem = ArrowFSWrapper(arrow)
    return filesystem, str(name)


def find_objects(url: str) -> Iterator[str | LoadFailure]:
    """Find the files of a URL: all below it, those that match a pattern, or itself.

    Args:
        url: The URL, perhaps with `*`, `?` or `[`.

    Yields:
        URLs, without files that are hidden or in hidden folders; a failure if there are none.
    """
    scheme = url[: url.index("://") + 3]
    try:
        filesystem, root = open_filesystem(url)
        is_pattern = any(character in root for character in "*?[")
        names = sorted(filesystem.glob(root) if is_pattern else filesystem.find(root))
    except Exception as error:  # libraries of stores raise anything
        yield LoadFailure(
            url, f"it cannot be listed: {type(error).__name__}: {error}; check the URL and the credentials"
        )
        return
    found = False
    for name in names:
        relative = (
            PurePosixPath(name).relative_to(root) if not is_pattern and name != root else PurePosixPath(name).name
        )
        if not any(part.startswith(".") for part in PurePosixPath(relative).parts):
            found = True
            yield f"{scheme}{name}"
    if not found:
        yield LoadFailure(url, "there is no such file, and none below it; check the URL")


class Downloads:
    """A folder with the files of a batch that are in object stores, each downloaded once. A context manager.

    Args:
        policy: With `urls=False`, or with `hosts`, nothing is downloaded. With `folders`, the folder for temporary
            files has to be among them, and only `OBJECT_STORES` are opened. `max_bytes` limits each file.
    """

    def __init__(self, policy: MediaPolicy) -> None:
        self._policy = policy
        self._folder = TemporaryDirectory(prefix="qwen3vl-ray-")
        self._files: dict[str, Path | MediaError] = {}
        self._numbers = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

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
            self._files[url] = self._download(url)
        except MediaError as error:
            self._files[url] = error
        except Exception as error:  # libraries of stores raise anything
            reason = f"{url} cannot be downloaded: {type(error).__name__}: {error}; check the URL and the credentials"
            self._files[url] = MediaError(reason)

    def _download(self, url: str) -> Path:
        self._check_allowed(url)
        filesystem, name = open_filesystem(url)
        if isinstance(filesystem, LocalFileSystem):
            self._policy.check_path(name)
        self._check_size(url, filesystem.size(name) or 0)
        path = Path(self._folder.name) / f"{next(self._numbers)}{PurePosixPath(name).suffix}"
        filesystem.get_file(name, str(path))
        self._check_size(url, path.stat().st_size)  # not every store says it before
        return path

    def _check_allowed(self, url: str) -> None:
        policy = self._policy
        if not policy.urls:
            raise PolicyError(f"{url} is not downloaded: the media policy forbids URLs (MediaPolicy.urls)")
        if policy.hosts is not None:
            raise PolicyError(
                f"{url} is not downloaded: the media policy allows some hosts only (MediaPolicy.hosts), and an object "
                "store is none"
            )
        if policy.folders is None:
            return
        try:
            policy.check_path(self._folder.name)
        except PolicyError as error:
            raise PolicyError(
                f"{url} is not downloaded to {self._folder.name}: {error}, such as that for temporary files"
            ) from error
        # Others read files and addresses of this machine, as zip://page.png::/srv/archive.zip does, and PyArrow takes
        # the address of a server from a query.
        if url.partition("://")[0].lower() not in OBJECT_STORES or "::" in url or "?" in url:
            raise PolicyError(
                f"{url} is not downloaded: with folders in the media policy (MediaPolicy.folders), only plain URLs of "
                f"{', '.join(sorted(OBJECT_STORES))} are"
            )

    def _check_size(self, url: str, size: int) -> None:
        if size > self._policy.max_bytes:
            raise PolicyError(
                f"{url} has {size} bytes and the media policy allows {self._policy.max_bytes} (MediaPolicy.max_bytes)"
            )

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
        url, fragment = _split_fragment(reference)
        return f"{self.fetch(url)}{fragment}"


def _object_urls(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield the URLs of object stores in an input, without fragments."""
    for key in _MEDIA_KEYS & value.keys():
        for reference in value[key] if isinstance(value[key], list) else [value[key]]:
            if is_object(reference):
                yield _split_fragment(reference)[0]


def _split_fragment(reference: str) -> tuple[str, str]:
    fragment = _FRAGMENT.search(reference)
    return (reference[: fragment.start()], fragment[0]) if fragment else (reference, "")

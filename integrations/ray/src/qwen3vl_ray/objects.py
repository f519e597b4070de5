"""Files in object stores: s3://, gs://, hf:// and what else fsspec and PyArrow open."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import fsspec
from fsspec.implementations.arrow import ArrowFSWrapper
from fsspec.implementations.local import LocalFileSystem
from pyarrow.fs import FileSystem

from qwen3vl.documents import LoadFailure
from qwen3vl.ingestion.urls import split_url
from qwen3vl.loaders.outcomes import storable_name

OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "hf", "az", "abfs", "abfss", "oss", "local"})
"""Schemes of URLs that are opened under a policy with folders, or without private hosts. The files of `local` are those
of this machine."""
_AZURE = frozenset({"az", "abfs", "abfss"})
_AZURE_HOST = re.compile(
    r"(?:[\w$-]+@)?[\w-]+(?:\.[\w-]+)*\.core\.(?:windows\.net|usgovcloudapi\.net|chinacloudapi\.cn)",
    re.ASCII | re.IGNORECASE,
)
_SCHEME = re.compile(r"(?P<name>[a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_OPENED_BY_THE_CORE = frozenset({"http", "https", "file"})
_PASSWORD = re.compile(r"(?!github:)[^:/]+://[^/?]*:[^/?@]*@", re.IGNORECASE)
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


def why_no_path(path: str) -> str | None:
    """Return why what `is_object` refuses is no path either.

    Args:
        path: A path.

    Returns:
        The reason if it is an http(s) or file URL; None if it is a path.
    """
    scheme = None if is_object(path) else _SCHEME.match(path)
    if scheme is None:
        return None
    if scheme["name"].lower() == "file":
        return "a file is named by its path: leave out file://, and write special characters as they are"
    return "an http(s) URL is no path: download the file; a row of a manifest can name it as its image or video"


def is_plain(url: str) -> bool:
    """Return whether the URL of a file names no address: its host is that of one of `OBJECT_STORES`.

    Args:
        url: The URL.

    Returns:
        False for chains of file systems, for URLs with a query, from which PyArrow takes the address of a server, and
        for Azure's at other hosts than its own.
    """
    scheme, _, location = url.partition("://")
    if scheme.lower() not in OBJECT_STORES or split_url(url)[1] or "://" in location:
        return False
    authority = location.partition("/")[0]
    if any(character in authority for character in "?#\\"):  # parsers do not agree where the host ends
        return False
    names_host = scheme.lower() in _AZURE and any(character in authority for character in "@:.")
    return not names_host or _AZURE_HOST.fullmatch(authority) is not None


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
        location, tail = split_url(url)
        if tail.startswith("::"):
            raise
        # PyArrow takes a URI, in which `#`, `?` and `%` mean something, and fsspec's URLs have names as they are.
        scheme, _, location = location.partition("://")
        authority, slash, path = location.partition("/")
        uri = f"{scheme}://{quote(authority, safe='@:%')}{slash}{quote(path)}{tail}"
        arrow, name = FileSystem.from_uri(uri)
        filesystem = ArrowFSWrapper(arrow)
    return filesystem, str(name)


def find_objects(url: str) -> Iterator[str | LoadFailure]:
    """Find the files of a URL: all below it, those that match a pattern, or itself.

    Args:
        url: The URL, perhaps with `*`, `?` or `[`.

    Yields:
        URLs, without files that are hidden or in hidden folders; a failure if there are none.
    """
    try:
        filesystem, root = open_filesystem(url)
        filesystem.invalidate_cache()  # file systems are kept, with their listings, as long as the process
        to_url = _find_form(url, root, isinstance(filesystem, LocalFileSystem))
        is_pattern = _has_magic(root)
        names = sorted(filesystem.glob(root) if is_pattern else filesystem.find(root))
    except Exception as error:  # libraries of stores raise anything
        reason = f"it cannot be listed: {type(error).__name__}: {error}; check the URL and the credentials"
        yield LoadFailure(storable_name(url), storable_name(reason))
        return
    found = False
    for name in names:
        relative = (
            PurePosixPath(name).relative_to(root) if not is_pattern and name != root else PurePosixPath(name).name
        )
        if not any(part.startswith(".") for part in PurePosixPath(relative).parts):
            found = True
            found_url = to_url(name)
            if (stored := storable_name(found_url)) == found_url:
                yield found_url
            else:  # as `Loader.load_file` says it of a path
                yield LoadFailure(stored, "its name is not valid UTF-8; rename it")
    if not found:
        yield LoadFailure(storable_name(url), "there is no such file, and none below it; check the URL")


def _find_form(url: str, root: str, is_local: bool) -> Callable[[str], str]:
    """Return the function that gives the URLs of the files below a URL, with its host, user, query and chain.

    Args:
        url: The URL.
        root: Its name in the file system.
        is_local: Whether that is the file system of this machine, whose names are absolute.

    Returns:
        A function of a name in the file system.

    Raises:
        ValueError: The URL has a password, or is not made of its name in the file system.
    """
    scheme, _, location = url.partition("://")
    if is_local:
        return lambda name: f"{scheme}://{name}"
    if _PASSWORD.match(url):
        raise ValueError(
            "the URL has a password, which would be stored with each document; leave it out, and set it in the "
            "environment of the nodes or in the configuration of fsspec"
        )
    root = root.strip("/")
    chain = url.partition("::")[0]
    for place in (split_url(url)[0], chain):  # what looks like a query may be a part of a name
        location, tail = place.partition("://")[2], url[len(place) :]
        if location.strip("/") == root:  # s3://bucket/folder
            slash = "/" if location.startswith("/") else ""
            return lambda name: f"{scheme}://{slash}{name.lstrip('/')}{tail}"
        authority, _, path = location.partition("/")
        path = path.strip("/")
        other = root.removesuffix(path)
        if authority and f"/{root}".endswith(f"/{path}" if path else "") and not _has_magic(other):
            # ftp://user@host/folder, gs://anonymous@bucket/folder
            start = f"{scheme}://{authority}/"
            return lambda name: f"{start}{name.lstrip('/').removeprefix(other).lstrip('/')}{tail}"
    raise ValueError(f"it is not known what URLs the files below {root!r} have; list the files in a manifest")


def _has_magic(name: str) -> bool:
    return any(character in name for character in "*?[")


def split_fragment(reference: str) -> tuple[str, str]:
    """Return a reference without its fragment, and the fragment.

    Args:
        reference: A path or URL, perhaps with `#page=` or `#t=` at its end.

    Returns:
        Two strings whose sum is the reference.
    """
    fragment = _FRAGMENT.search(reference)
    return (reference[: fragment.start()], fragment[0]) if fragment else (reference, "")

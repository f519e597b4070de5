"""The media policy: which files and addresses media references may reach, and how large media may be."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from pathlib import Path
from typing import cast

from qwen3vl.errors import MediaError, PolicyError

SYMLINK_LOOP = "its symbolic links form a loop; make the link point to a file"
"""Reason of the error of a path whose links lead back to it."""


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """Limits on every image and video that is opened.

    Attributes:
        urls: Whether http(s) URLs are fetched at all.
        hosts: The only host names that are fetched from; None allows all. Names that are not ASCII may be written in
            either form: `"bücher.example"` or `"xn--bcher-kva.example"`.
        private_hosts: Whether addresses that are not public (loopback, private, link-local, ...) may be fetched.
        folders: The only folders whose files, at any depth, are opened; None allows every file.
        max_bytes: Maximum size of an encoded file, read or fetched, in bytes.
        max_pixels: Maximum number of pixels of an image or frame; checked by its header, before it is decoded.
        max_seconds: Maximum duration of a video, or of the part that is asked for, in seconds.
        max_frames: Maximum number of images in a list of frames, and of frames that an input's own `max_frames` and
            `fps` may have sampled from a video file.
        timeout: Maximum duration of one fetch, the lookup of names and redirects included, in seconds.
        max_redirects: Maximum number of redirects; each target is checked like the first.
        isolated: Whether each image, PDF page and video is decoded in a worker process, which is ended if it exceeds
            `seconds` or `memory`, or crashes. None means True for references in documents (LangChain, LlamaIndex), and
            False elsewhere. Has no effect on Windows.
        seconds: Maximum time to read or decode one image, one PDF page or one video, in seconds; if `isolated`.
        memory: Maximum memory that reading or decoding one of them may take, in bytes; if `isolated`, on Linux.

    Raises:
        ValueError: A folder is empty, is no path, or begins with `~` and an unknown user.

    Example:
        ```python
        policy = MediaPolicy(urls=False, folders=("/srv/uploads",), max_bytes=20_000_000)
        ```
    """

    urls: bool = True
    hosts: str | Sequence[str] | None = None
    private_hosts: bool = False
    folders: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None
    max_bytes: int = 512 * 2**20
    max_pixels: int = 100_000_000
    max_seconds: float = 6 * 3600.0
    max_frames: int = 4096
    timeout: float = 20.0
    max_redirects: int = 3
    isolated: bool | None = None
    seconds: float = 30.0
    memory: int = 2**30

    def __post_init__(self) -> None:
        # A tuple of one is easily written without its comma; read letter by letter, "/srv" would allow "/".
        if self.folders is not None:
            folders = (self.folders,) if isinstance(self.folders, (str, PathLike)) else self.folders
            object.__setattr__(self, "folders", tuple(map(_check_folder, folders)))
        if self.hosts is not None:
            object.__setattr__(self, "hosts", (self.hosts,) if isinstance(self.hosts, str) else tuple(self.hosts))

    @property
    def allowed_folders(self) -> tuple[str, ...] | None:
        """The folders as a tuple of str; None if every file is allowed."""
        return cast("tuple[str, ...] | None", self.folders)

    def check_path(self, path: str) -> Path:
        """Resolve a path and check that it lies within the allowed folders.

        Args:
            path: The path as the caller wrote it.

        Returns:
            The absolute path, with symbolic links resolved.

        Raises:
            MediaError: The path is malformed.
            PolicyError: The path is outside the allowed folders.
        """
        try:
            resolved = Path(path).resolve()
        except RuntimeError as error:  # how Python before 3.13 reports a loop
            raise MediaError(SYMLINK_LOOP) from error
        except (OSError, ValueError) as error:  # such as a null character
            raise MediaError(f"this is no path to a file: {error}; pass a path without special characters") from error
        folders = self.allowed_folders
        if folders is not None and not any(resolved.is_relative_to(folder) for folder in _resolve(folders)):
            allowed = ", ".join(map(_describe_folder, folders)) or "none"
            raise PolicyError(
                f"the file is outside the folders that the media policy allows ({allowed}); MediaPolicy(folders=(…,)) "
                "allows others"
            )
        return resolved


def _check_folder(folder: str | PathLike[str]) -> str:
    """Return a folder as str; raise `ValueError` if it can only be a mistake."""
    path = fspath(folder)
    if not isinstance(path, str) or not path or "\0" in path:  # Path("") is the current folder
        raise ValueError(f"MediaPolicy.folders has {folder!r}, which is no path of a folder; '.' is the current folder")
    if path.startswith("~") and os.path.expanduser(path) == path:  # noqa: PTH111 (Path.expanduser raises an error of its own)
        raise ValueError(
            f"MediaPolicy.folders has {path!r}, and there is no such user; ./{path} is a folder of that name"
        )
    return path


def _describe_folder(folder: str) -> str:
    return folder if Path(folder).expanduser().is_dir() else f"{folder}, which is no folder"


def _resolve(folders: Sequence[str]) -> list[Path]:
    return [Path(folder).expanduser().resolve() for folder in folders]


DEFAULT_POLICY = MediaPolicy()
"""For references that the application itself writes: every file, and public addresses."""

UNTRUSTED_POLICY = MediaPolicy(folders=(), max_bytes=32 * 2**20, isolated=True)
"""For references that come with documents and queries of others: no file of this machine, until folders are named, and
decoding in processes of its own."""


def policy_for_documents(policy: MediaPolicy) -> MediaPolicy:
    """Return a policy for references that come with documents of others, and check that it names folders.

    Args:
        policy: Any policy.

    Returns:
        The policy, with `isolated` on unless it is set to False.

    Raises:
        ValueError: `folders` is None, which would open every file of this machine.
    """
    if policy.folders is None:
        raise ValueError(
            "the policy names no folders, which would open every file of this machine to references in documents: "
            "MediaPolicy(folders=(…,)) names those that may be opened, folders=() none, folders=('/',) all"
        )
    return replace(policy, isolated=True) if policy.isolated is None else policy

"""What media references may reach, and how much they may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path

from qwen3vl.errors import MediaError, PolicyError


@dataclass(frozen=True, slots=True)
class MediaPolicy:
    """Limits on every picture and clip that is opened.

    urls: whether http(s) references are fetched at all.
    hosts: if given, the only host names that are fetched from.
    private_hosts: whether addresses that are not public (loopback, private, link-local, …) may be fetched.
    folders: if given, the only folders, with what is below them, whose files are opened; None is every file.
    max_bytes: of one encoded file, read or fetched.
    max_pixels: of one picture or frame, by its header, before it is decoded.
    max_seconds: length of a clip, or of the part asked for.
    max_frames: pictures in a list of frames.
    timeout: seconds for one fetch, redirects included.
    max_redirects: how many are followed; each target is checked like the first.
    """

    urls: bool = True
    hosts: tuple[str, ...] | None = None
    private_hosts: bool = False
    folders: tuple[str | PathLike[str], ...] | None = None
    max_bytes: int = 512 * 2**20
    max_pixels: int = 100_000_000
    max_seconds: float = 6 * 3600.0
    max_frames: int = 4096
    timeout: float = 20.0
    max_redirects: int = 3

    def __post_init__(self) -> None:
        # A single one is easily written without its comma; letter by letter, "/srv" would allow "/".
        if isinstance(self.folders, (str, PathLike)):
            object.__setattr__(self, "folders", (self.folders,))
        if self.folders is not None:
            object.__setattr__(self, "folders", tuple(map(fspath, self.folders)))
        if isinstance(self.hosts, str):
            object.__setattr__(self, "hosts", (self.hosts,))

    def check_path(self, path: str) -> Path:
        """The real path, links followed; raises `PolicyError` outside the allowed folders."""
        try:
            real = Path(path).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a null character, links in a circle
            raise MediaError(f"this is no path to a file: {error}") from error
        if self.folders is not None and not any(real.is_relative_to(folder) for folder in _resolved(self.folders)):
            allowed = ", ".join(str(folder) for folder in self.folders) or "none"
            raise PolicyError(
                f"the file is outside the folders that the media policy allows ({allowed}); MediaPolicy(folders=(…,)) "
                "names others"
            )
        return real


def _resolved(folders: Sequence[str | PathLike[str]]) -> list[Path]:
    return [Path(folder).expanduser().resolve() for folder in folders]


DEFAULT_POLICY = MediaPolicy()

UNTRUSTED_POLICY = MediaPolicy(folders=(), max_bytes=32 * 2**20)
"""For references that come with documents and queries of others: no file of this machine, until folders are named."""


def require_folders(policy: MediaPolicy) -> MediaPolicy:
    """A policy for references of others; raises `ValueError` where it opens every file of this machine unsaid."""
    if policy.folders is None:
        raise ValueError(
            "the policy names no folders, which would open every file of this machine to references in documents: "
            "MediaPolicy(folders=(…,)) names those that may be opened, folders=() none, folders=('/',) all"
        )
    return policy

"""Passes each file of a folder, a glob pattern or a path to the loader for its type."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.hashing import file_digest
from qwen3vl.inputs import VIDEO_SUFFIXES
from qwen3vl.loaders.find import absolute_name, expand_user, find_files
from qwen3vl.loaders.images import load_image
from qwen3vl.loaders.outcomes import Skipped, attempt, storable_name
from qwen3vl.loaders.pdf import load_pdf
from qwen3vl.loaders.text import MARKDOWN_SUFFIXES, load_text
from qwen3vl.loaders.videos import load_video
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy
from qwen3vl.media.source import check_file

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"}
)
"""Suffixes of files that are loaded as images."""
TEXT_SUFFIXES = frozenset({".txt", ".rst"}) | MARKDOWN_SUFFIXES
"""Suffixes of files that are loaded as text."""
LOADED_SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES | TEXT_SUFFIXES | {".pdf"}
"""Suffixes of all files that are loaded."""


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads folders with everything below them, glob patterns, and single files.

    Attributes:
        segment_seconds: Longer videos are cut into equal parts of about this duration.
        passage_chars: Maximum number of characters of a passage of text.
        fuse_page_text: Whether a PDF page's text is embedded together with its image, or only stored beside it.
        exclude: Folders that are not entered, such as that of the vector store. A file in them is loaded only if it is
            named itself.
        policy: Limits on files and sizes.

    Raises:
        ValueError: `segment_seconds` is not positive, or `passage_chars` is less than 1.

    Example:
        ```python
        for loaded in Loader(segment_seconds=10).load(["photos", "videos/*.mp4"]):
            print(loaded)
        ```
    """

    segment_seconds: float = 30.0
    passage_chars: int = 1200
    fuse_page_text: bool = False
    exclude: tuple[Path, ...] = ()
    policy: MediaPolicy = DEFAULT_POLICY

    def __post_init__(self) -> None:
        if not self.segment_seconds > 0:  # also if it is NaN
            raise ValueError(f"segment_seconds is {self.segment_seconds}; it must be a positive number of seconds")
        if self.passage_chars < 1:
            raise ValueError(f"passage_chars is {self.passage_chars}; it must be at least 1")

    def load(
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Iterator[Document | LoadFailure | Skipped]:
        """Load files, one at a time, in the order of their names.

        Hidden files and folders are left out, unless they are named themselves. A file that is reached twice is
        loaded once.

        Args:
            paths: A path or glob pattern, or several.

        Yields:
            Documents, and failures and skipped files where they occur.
        """
        for found in self.find(paths):
            if isinstance(found, Path):
                yield from self.load_file(found)
            else:
                yield found

    def find(
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Iterator[Path | LoadFailure | Skipped]:
        """Find the files that `load` loads, without opening them.

        Args:
            paths: As for `load`.

        Yields:
            Absolute paths, each once; failures and skipped links where they occur.
        """
        seen: set[bytes] = set()  # digests: paths would take several times as much memory
        for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
            expanded = expand_user(os.fspath(path))
            for found in attempt(absolute_name(expanded), find_files, expanded, self.exclude):
                if not isinstance(found, Path):
                    yield found
                elif (digest := _path_digest(found)) not in seen:
                    seen.add(digest)
                    yield found

    def load_file(self, path: Path) -> Iterator[Document | LoadFailure | Skipped]:
        """Load one file.

        Args:
            path: An absolute path.

        Yields:
            The file's documents, a failure if it cannot be loaded, or that it is skipped.
        """
        yield from attempt(str(path), self._load_file, path)

    def _load_file(self, path: Path) -> Iterator[Document | LoadFailure | Skipped]:
        name = storable_name(str(path))
        load = self._choose_loader(path.suffix.lower())
        if name != str(path):
            yield LoadFailure(name, "its name is not valid UTF-8; rename it")
        elif load is None:
            yield Skipped(name, path.suffix.lower() or "no suffix")
        else:
            check_file(self.policy.check_path(name), self.policy)
            yield from load(path, file_digest(path))

    def _choose_loader(self, suffix: str) -> Callable[[Path, str], Iterator[Document | LoadFailure]] | None:
        """Return the function that loads files with this suffix from a path and the digest of the content."""
        if suffix in IMAGE_SUFFIXES:
            return load_image
        if suffix == ".pdf":
            return lambda path, digest: load_pdf(path, digest, self.policy, fuse=self.fuse_page_text)
        if suffix in VIDEO_SUFFIXES:
            return lambda path, digest: load_video(path, digest, self.segment_seconds, self.policy)
        if suffix in TEXT_SUFFIXES:
            return lambda path, _: load_text(path, self.passage_chars)
        return None


def _path_digest(path: Path) -> bytes:
    """Return 16 bytes that are equal for equal paths: on Windows, also if their letters are upper and lower case."""
    return hashlib.blake2b(os.fsencode(os.path.normcase(path)), digest_size=16).digest()

"""Finds files in folders and by globs, and hands each to the loader of its kind."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import InputError
from qwen3vl.hashing import file_digest
from qwen3vl.inputs import VIDEO_SUFFIXES
from qwen3vl.loaders.pdf import load_pdf
from qwen3vl.loaders.text import load_text
from qwen3vl.loaders.videos import load_video
from qwen3vl.media.images import check_file
from qwen3vl.media.policy import DEFAULT_POLICY, MediaPolicy

PICTURE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm"}
)
TEXT_SUFFIXES = frozenset({".txt", ".md", ".markdown", ".rst"})


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file of a type that nothing here loads."""

    source: str
    suffix: str


@dataclass(frozen=True, slots=True)
class Loader:
    """Loads folders (with all below them), globs and single files.

    segment_seconds: clips longer than this are cut into equal parts of about this length.
    passage_chars: texts are cut into passages of at most this many characters, between paragraphs.
    fuse_page_text: embed a PDF page's text together with its picture, not only keep it for reading.
    exclude: folders that are passed over, such as the store's own.
    """

    segment_seconds: float = 30.0
    passage_chars: int = 1200
    fuse_page_text: bool = False
    exclude: tuple[Path, ...] = ()
    policy: MediaPolicy = DEFAULT_POLICY

    def load(
        self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
    ) -> Iterator[Document | LoadFailure | Skipped]:
        """Documents, failures and skipped files, in the order of the files' names.

        Hidden files and folders are passed over, unless they are named themselves.
        """
        seen: set[Path] = set()
        for path in [paths] if isinstance(paths, (str, os.PathLike)) else paths:
            found = False
            for file in self._files(os.fspath(path)):
                found = True
                if isinstance(file, LoadFailure):
                    yield file
                elif file not in seen:
                    seen.add(file)
                    yield from self.load_file(file)
            if not found and not Path(path).is_dir():
                reason = "there is no such file or folder, and no file that the pattern finds"
                yield LoadFailure(os.path.abspath(path), reason)  # noqa: PTH100 (a link's target may be gone)

    def load_file(self, path: Path) -> Iterator[Document | LoadFailure | Skipped]:
        """One file's documents."""
        name = str(path).encode("utf-8", "backslashreplace").decode()
        if name != str(path):
            yield LoadFailure(name, "its name is not valid UTF-8; rename it")
            return
        load = self._loader(path.suffix.lower())
        if load is None:
            yield Skipped(name, path.suffix.lower() or "no suffix")
            return
        try:
            check_file(self.policy.check_path(name), self.policy)
            yield from load(path, file_digest(path))
        except InputError as error:
            yield LoadFailure(name, str(error))
        except OSError as error:
            yield LoadFailure(name, f"the file cannot be read: {error.strerror or error}")

    def _loader(self, suffix: str) -> Callable[[Path, str], Iterator[Document | LoadFailure]] | None:
        if suffix in PICTURE_SUFFIXES:
            return load_image
        if suffix == ".pdf":
            return lambda path, digest: load_pdf(path, digest, fuse=self.fuse_page_text)
        if suffix in VIDEO_SUFFIXES:
            return lambda path, digest: load_video(path, digest, self.segment_seconds, self.policy)
        if suffix in TEXT_SUFFIXES:
            return lambda path, _: load_text(path, self.passage_chars)
        return None

    def _files(self, path: str) -> Iterator[Path | LoadFailure]:
        named = Path(path).expanduser()
        if named.is_dir():
            yield from self._walk(named.resolve())
        elif named.exists():
            yield named.resolve()
        elif glob.has_magic(path):
            for match in sorted(glob.glob(str(named), recursive=True)):  # noqa: PTH207 (the pattern may be absolute)
                if Path(match).is_file():
                    yield Path(match).resolve()

    def _walk(self, folder: Path) -> Iterator[Path | LoadFailure]:
        """Files before folders, each by name; links to folders are not followed."""
        if any(folder == excluded.resolve() for excluded in self.exclude):
            return
        folders = []
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            yield LoadFailure(str(folder), f"the folder cannot be read: {error.strerror or error}")
            return
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)
        for below in folders:
            yield from self._walk(below)


def load_image(path: Path, digest: str) -> Iterator[Document]:
    """A picture as it is; whether it can be read is seen when it is embedded."""
    yield Document(str(path), "picture", digest, image=str(path))

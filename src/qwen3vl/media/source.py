"""Encoded media: files on this machine and bytes in memory, checked under a media policy and identified by content."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from qwen3vl.errors import MediaError, PolicyError
from qwen3vl.hashing import bytes_digest, file_digest
from qwen3vl.inputs import ImageReference, VideoReference
from qwen3vl.media.policy import SYMLINK_LOOP, MediaPolicy


class FileVersion(NamedTuple):
    """Identifies the content of a file for as long as the file is not changed.

    Attributes:
        path: Absolute path.
        size: Size in bytes.
        mtime_ns: Time of the last change in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class MediaSource:
    """An encoded image, PDF or video: a file, or bytes in memory.

    Attributes:
        encoded: The bytes; for a file its path, size and time of the last change when it was checked.
    """

    encoded: FileVersion | bytes

    @property
    def data(self) -> Path | bytes:
        """The file's path, or the bytes."""
        return self.encoded if isinstance(self.encoded, bytes) else Path(self.encoded.path)

    @property
    def buffered_bytes(self) -> int:
        """Size of the encoded bytes that are kept in memory; 0 for a file."""
        return len(self.encoded) if isinstance(self.encoded, bytes) else 0

    def content_digest(self) -> str:
        """Return the digest of the encoded bytes. Digests of files are cached.

        Returns:
            32 hexadecimal digits.

        Raises:
            MediaError: The file cannot be read.
        """
        return bytes_digest(self.encoded) if isinstance(self.encoded, bytes) else content_digest(self.encoded)

    def require_unchanged(self) -> None:
        """Check that the file was not changed since `open_source` checked it; do nothing for bytes.

        Call this after decoding: pixels of a changed file must not be cached under the digest of its former content.

        Raises:
            MediaError: The size or the time of the last change differs, or the file was deleted.
        """
        if isinstance(self.encoded, bytes):
            return
        try:
            stat = Path(self.encoded.path).stat()
        except OSError as error:
            raise MediaError("the file was deleted while it was read; check its path") from error
        if (stat.st_size, stat.st_mtime_ns) != (self.encoded.size, self.encoded.mtime_ns):
            raise MediaError("the file changed while it was read; try it again")


def open_source(reference: ImageReference | VideoReference, policy: MediaPolicy) -> MediaSource:
    """Find a reference's file, fetch its URL, or take its bytes, all within a policy's limits.

    Args:
        reference: A reference whose origin is not `"pixels"`.
        policy: Limits on files, addresses and sizes.

    Returns:
        The source; a file is not read yet.

    Raises:
        MediaError: The file or URL cannot be read.
        PolicyError: The policy does not allow it.
    """
    if reference.origin == "path":
        return MediaSource(check_file(policy.check_path(reference.data), policy))
    if reference.origin == "url":
        from qwen3vl.media.fetch import fetch  # httpx would delay the start of every process

        return MediaSource(fetch(reference.data, policy))
    return MediaSource(check_bytes(reference.data, policy))


def check_file(path: Path, policy: MediaPolicy) -> FileVersion:
    """Check that a path is a file of an allowed size.

    Args:
        path: A path that `MediaPolicy.check_path` returned.
        policy: Limits the size.

    Returns:
        The file's present version.

    Raises:
        MediaError: The file is missing, empty, cannot be read, or is no regular file.
        PolicyError: The file is too large.
    """
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise MediaError("the file does not exist; check its path") from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise MediaError(SYMLINK_LOOP) from error
        raise MediaError(f"the file cannot be read: {error.strerror or error}; check its permissions") from error
    except ValueError as error:
        raise MediaError(f"the file cannot be read: {error}") from error
    if not path.is_file():
        raise MediaError("this is not a file; pass the path of an image or video file")
    if stat.st_size == 0:
        raise MediaError("the file is empty; export it again")
    if stat.st_size > policy.max_bytes:
        raise PolicyError(
            f"the file has {stat.st_size} bytes and the media policy allows {policy.max_bytes} (MediaPolicy.max_bytes)"
        )
    return FileVersion(str(path), stat.st_size, stat.st_mtime_ns)


def check_bytes(data: bytes, policy: MediaPolicy) -> bytes:
    """Check the size of encoded bytes.

    Args:
        data: An encoded file.
        policy: Limits the size.

    Returns:
        The same bytes.

    Raises:
        PolicyError: There are more than `policy.max_bytes`.
    """
    if len(data) > policy.max_bytes:
        raise PolicyError(
            f"it has {len(data)} bytes and the media policy allows {policy.max_bytes} (MediaPolicy.max_bytes)"
        )
    return data


def check_pixels(width: int, height: int, policy: MediaPolicy) -> None:
    """Check the size of an image or of a video's frames.

    Args:
        width: Pixels per row.
        height: Number of rows.
        policy: Limits the number of pixels.

    Raises:
        PolicyError: There are too many pixels.
        MediaError: The width or height is less than 1.
    """
    if width * height > policy.max_pixels:
        raise PolicyError(
            f"it has {width} x {height} pixels and the media policy allows {policy.max_pixels} (MediaPolicy.max_pixels)"
        )
    if width < 1 or height < 1:
        raise MediaError(f"it has {width} x {height} pixels; export it again")


def check_frame_list(num_frames: int, policy: MediaPolicy) -> None:
    """Check the length of a list of frames.

    Args:
        num_frames: Number of frames.
        policy: Limits it.

    Raises:
        PolicyError: There are more than `policy.max_frames`.
    """
    if num_frames > policy.max_frames:
        raise PolicyError(
            f"it has {num_frames} frames and the media policy allows {policy.max_frames} (MediaPolicy.max_frames)"
        )


@lru_cache(maxsize=1024)
def content_digest(version: FileVersion) -> str:
    """Return the digest of a file's content, 32 hexadecimal digits.

    The digest is cached by version, so that a file is read once for all pages of a PDF or parts of a video.

    Args:
        version: What `check_file` returned.

    Returns:
        The digest.

    Raises:
        MediaError: The file cannot be read.
    """
    try:
        return file_digest(Path(version.path))
    except OSError as error:
        raise MediaError(f"the file cannot be read: {error.strerror or error}; check its permissions") from error

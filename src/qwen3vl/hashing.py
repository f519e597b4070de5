"""Content digests: BLAKE2b with 16 bytes, as 32 hexadecimal digits."""

from __future__ import annotations

import hashlib
from pathlib import Path

_DIGEST_BYTES = 16


def file_digest(path: Path) -> str:
    """Return the digest of a file's bytes.

    Args:
        path: An existing file.

    Returns:
        32 hexadecimal digits.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_BYTES)).hexdigest()


def bytes_digest(data: bytes) -> str:
    """Return the digest of bytes, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def text_digest(text: str) -> str:
    """Return the digest of a text in UTF-8, 32 hexadecimal digits; lone surrogates are encoded as they are."""
    return bytes_digest(text.encode("utf-8", "surrogatepass"))

"""Loads a text or Markdown file as documents, one for each passage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.hashing import text_digest
from qwen3vl.loaders.passages import split_passages

MARKDOWN_SUFFIXES = frozenset({".md", ".markdown"})
"""Suffixes of files whose headings and code fences are recognised."""


def load_text(path: Path, max_chars: int) -> Iterator[Document]:
    """Load a text file in passages.

    Args:
        path: The file, in UTF-8.
        max_chars: Maximum number of characters of a passage.

    Yields:
        Documents of kind `"text"` with `passage` (from 0), `first_line`, `last_line` (from 1) and, below a Markdown
        heading, `heading` in their metadata.

    Raises:
        InputError: The file is not UTF-8.
        OSError: The file cannot be read.
    """
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    markdown = path.suffix.lower() in MARKDOWN_SUFFIXES
    for number, passage in enumerate(split_passages(content, max_chars, markdown=markdown)):
        metadata: dict[str, Any] = {
            "passage": number,
            "first_line": passage.first_line,
            "last_line": passage.last_line,
        }
        if passage.heading:
            metadata["heading"] = passage.heading
        yield Document(
            str(path),
            "text",
            text_digest(passage.text),
            locator=f"lines={passage.first_line},{passage.last_line}",
            text=passage.text,
            metadata=metadata,
        )

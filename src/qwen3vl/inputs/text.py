"""Checks that a text is valid Unicode."""

from __future__ import annotations

from qwen3vl.errors import InputError

_ESCAPED_BYTES = range(0xDC80, 0xDD00)
"""What `errors="surrogateescape"` decodes bytes to that are not UTF-8, as Python does for file names and arguments."""


def check_text(text: str, name: str = "the text") -> str:
    """Check that a text has no lone surrogates, which no tokenizer and no store can encode.

    Args:
        text: The text.
        name: What the text is, for the error message.

    Returns:
        The same text.

    Raises:
        InputError: It has one; the message says where, what it is, and how to repair the text.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(_describe(text, error.start, name)) from error
    return text


def _describe(text: str, position: int, name: str) -> str:
    code = ord(text[position])
    cause = (
        f"the byte 0x{code - 0xDC00:02X}, which is not UTF-8: decode the text with its own encoding"
        if code in _ESCAPED_BYTES
        else "half of a character that was cut in two: cut texts between characters"
    )
    return (
        f"{name} has a lone surrogate at character {position}, U+{code:04X}, which cannot be encoded as UTF-8. "
        f"It is {cause}, or replace it by text.encode('utf-8', 'replace').decode()"
    )

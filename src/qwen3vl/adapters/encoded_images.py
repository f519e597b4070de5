"""Texts that are the base64 of an image, as `Chroma.add_images` of LangChain stores images."""

from __future__ import annotations

import base64
import re

_SIGNATURES = {
    "image/png": rb"\x89PNG\r\n\x1a\n",
    "image/jpeg": rb"\xff\xd8\xff[\xc0-\xfe]",
    "image/gif": rb"GIF8[79]a",
    "image/webp": rb"RIFF.{4}WEBPVP8[ LX]",
    "image/tiff": rb"II\*\x00|MM\x00\*",
    # Two letters alone would also be the beginning of words: the reserved fields and the header size are checked too.
    "image/bmp": rb"BM.{4}\x00{4}.{4}[\x0c\x28\x34\x38\x40\x6c\x7c]\x00{3}",
    "image/avif": rb"\x00{3}.ftypavi[fs]",
    "image/jp2": rb"\x00{3}\x0cjP  \r\n\x87\n",
    "image/x-portable-pixmap": rb"P[56]\s\d{1,9}\s\d{1,9}\s\d{1,5}\s",
}
"""By media type, how the files of the formats that can be opened begin."""
_IMAGE = re.compile(b"|".join(b"(%b)" % signature for signature in _SIGNATURES.values()), re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_PREFIX_CHARACTERS = 64
_MIN_CHARACTERS = 36
"""Length in base64 of the smallest file that one of the formats allows, a GIF of 26 bytes."""


def image_data_uri(text: str) -> str | None:
    """Return an image as a data URI, if a text is the base64 of an image file and nothing else.

    Only the beginning, which has the format's signature, is decoded. So a broken image is an error where it is opened,
    and is not embedded as a text.

    Args:
        text: Any text.

    Returns:
        The data URI; None if the text is not base64, or not that of an image in one of the known formats.
    """
    if len(text) < _MIN_CHARACTERS or len(text) % 4 or not _BASE64.fullmatch(text, 0, _PREFIX_CHARACTERS):
        return None
    match = _IMAGE.match(base64.b64decode(text[:_PREFIX_CHARACTERS]))
    if match is None or match.lastindex is None or not _BASE64.fullmatch(text):
        return None
    return f"data:{list(_SIGNATURES)[match.lastindex - 1]};base64,{text}"

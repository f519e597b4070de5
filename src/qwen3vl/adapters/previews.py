"""JPEG previews of documents, for chat models that accept images."""

from __future__ import annotations

from qwen3vl.documents import Document
from qwen3vl.media import MediaPolicy

PREVIEW_SIDE = 1024
"""Default maximum of a preview's longer side, in pixels."""


def preview_jpeg(document: Document, policy: MediaPolicy, max_side: int = PREVIEW_SIDE) -> str | None:
    """Return a preview of a document's video, or of its image if it has no video, as a base64-encoded JPEG.

    Args:
        document: The document. Its image or PDF page is shown whole, its video as four frames in one image.
        policy: Which files and addresses media references may reach.
        max_side: Maximum of the preview's longer side, in pixels.

    Returns:
        The JPEG in base64, without the prefix of a data URI; None if the document has no media or if they cannot be
        read, which is logged as a warning.
    """
    from qwen3vl.media.preview import data_uri, preview

    image = preview(document, policy, max_side)
    uri = None if image is None else data_uri(image)
    return None if uri is None else uri.partition(",")[2]

"""Thumbnails of documents in their metadata."""

from __future__ import annotations

import logging
from dataclasses import replace

from qwen3vl.media.policy import MediaPolicy
from qwen3vl.media.preview import data_uri, preview
from qwen3vl.stores import Point

log = logging.getLogger(__name__)


def add_thumbnail(point: Point, max_characters: int, policy: MediaPolicy) -> Point:
    """Add a thumbnail to the metadata of a point's document.

    Args:
        point: The point.
        max_characters: Maximum number of characters of the thumbnail, a data URI; 0 for none.
        policy: Decides which media may be opened.

    Returns:
        The point with a thumbnail, or as it is if none is wanted or can be made.
    """
    if not max_characters:
        return point
    try:
        image = preview(point.document, policy)
        uri = None if image is None else data_uri(image, max_characters)
    except Exception:  # a thumbnail is no reason to lose the point
        log.warning("no thumbnail of %s", point.document.name, exc_info=True)
        return point
    if uri is None:
        return point
    metadata = {**point.document.metadata, "thumbnail": uri}
    return replace(point, document=replace(point.document, metadata=metadata))

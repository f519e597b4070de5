"""Queries that are more than words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llama_index.core.schema import QueryBundle

from qwen3vl.inputs import as_item


@dataclass
class MediaQuery(QueryBundle):
    """A `QueryBundle` that also carries what was asked, for `Qwen3VLRerank`; its own fields hold what they can."""

    given: Any = None


def media_query(given: Any, vector: list[float]) -> MediaQuery:
    item = as_item(given)
    pictures = [picture.data for picture in item.images if picture.origin in ("path", "url") and picture.page is None]
    return MediaQuery(
        query_str=" ".join(item.texts),
        image_path=str(pictures[0]) if pictures else None,
        embedding=vector,
        given=given,
    )

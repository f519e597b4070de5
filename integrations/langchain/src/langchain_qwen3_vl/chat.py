"""Documents as content blocks for chat models."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from langchain_core.documents import Document as LangChainDocument

from langchain_qwen3_vl.documents import from_langchain
from langchain_qwen3_vl.inputs import content_name
from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.adapters.previews import PREVIEW_SIDE, preview_jpeg
from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, policy_for_documents

log = logging.getLogger(__name__)


def content_blocks(
    documents: Iterable[LangChainDocument],
    *,
    media_keys: MediaKeys = DEFAULT_KEYS,
    policy: MediaPolicy = UNTRUSTED_POLICY,
    side: int = PREVIEW_SIDE,
) -> list[dict[str, Any]]:
    """Return documents as content blocks, so that a chat model sees their images, pages and videos.

    Media that cannot be read, and references that are no str, are left out, with a warning in the log.

    Args:
        documents: LangChain documents, with media references in their metadata.
        media_keys: Metadata keys of media references.
        policy: Which files and addresses media references may reach.
        side: Maximum of an image's longer side, in pixels.

    Returns:
        For each document a text block if it has text, and an image block (JPEG in base64) for its image or page and
        for its video. A video is shown as four frames in one image.

    Raises:
        ValueError: The policy names no folders.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_core.messages import HumanMessage
        from langchain_qwen3_vl import content_blocks
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (96, 96), "red").save("red.png")
        documents = [Document("a colour", metadata={"image": "red.png"})]
        blocks = content_blocks(documents, policy=MediaPolicy(folders=(".",)))
        message = HumanMessage(content=[{"type": "text", "text": "Which colour is this?"}, *blocks])
        print([block["type"] for block in message.content])
        ```
    """
    policy = policy_for_documents(policy)
    blocks: list[dict[str, Any]] = []
    for langchain_document in documents:
        try:
            document = from_langchain(langchain_document, media_keys)
        except InputError as error:
            log.warning("no image of %s: %s", content_name(langchain_document), error)
            document = Document("", "text", text=langchain_document.page_content)
        if document.text:
            blocks.append({"type": "text", "text": document.text})
        for part in (replace(document, video=None), replace(document, image=None)):
            jpeg = preview_jpeg(part, policy, side)
            if jpeg is not None:
                blocks.append({"type": "image", "base64": jpeg, "mime_type": "image/jpeg"})
    return blocks

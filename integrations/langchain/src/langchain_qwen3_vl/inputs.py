"""LangChain's documents, messages and content blocks as inputs of `qwen3vl`."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import BaseMessage, HumanMessage

from langchain_qwen3_vl.documents import from_langchain
from qwen3vl.adapters.encoded_images import image_data_uri
from qwen3vl.adapters.inputs import input_or_error
from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.documents import Document
from qwen3vl.errors import InputError, query_error
from qwen3vl.inputs import Input, as_video

Content: TypeAlias = "Input | LangChainDocument | Document | BaseMessage | list[str | dict[str, Any]]"
"""What may be embedded or reranked: an input of `qwen3vl`, a document, a message, or a list of content blocks."""


def to_input(value: Any, keys: MediaKeys = DEFAULT_KEYS) -> Any:
    """Convert a value to an input of `Embedder.embed`.

    Args:
        value: Any `Content`.
        keys: Metadata keys under which LangChain documents carry media references.

    Returns:
        The input. A str is a text, unless it is the base64 of an image, as `Chroma.add_images` writes it. A value of an
        unknown type is returned as it is, for `Embedder` to accept or to reject.

    Raises:
        InputError: A document is empty, a media reference is not a str, or a content block cannot be used.
    """
    if isinstance(value, str):
        return _text_to_input(value)
    if isinstance(value, LangChainDocument):
        return _document_to_input(value, keys)
    if isinstance(value, Document):
        return value.input
    if isinstance(value, BaseMessage):
        value = value.content
        if isinstance(value, str):
            return _text_to_input(value)
    if isinstance(value, Mapping) and "type" in value:
        value = [value]
    return _blocks_to_input(value) if isinstance(value, (list, tuple)) else value


def to_inputs(values: Iterable[Any], keys: MediaKeys) -> list[Any]:
    """Convert documents to inputs, with an `InputError` in place of each one that cannot be converted.

    Args:
        values: Any number of `Content`.
        keys: Metadata keys under which LangChain documents carry media references.

    Returns:
        Inputs and errors, in the order of the values.
    """
    return [input_or_error(value, lambda content: to_input(content, keys), content_name(value)) for value in values]


def to_query_input(query: Any, keys: MediaKeys = DEFAULT_KEYS) -> Any:
    """Convert a query to an input.

    Args:
        query: Any `Content`.
        keys: Metadata keys under which LangChain documents carry media references.

    Returns:
        The input.

    Raises:
        InputError: The query cannot be converted.
    """
    try:
        return to_input(query, keys)
    except InputError as error:
        raise query_error(error.source or content_name(query) or "", error) from error


def as_list(values: Any) -> list[Any]:
    """Return the values of a call as a list; a single text, mapping, document or message is a list of one.

    Args:
        values: A single text, mapping, document or message, or an iterable of `Content`. A list of content blocks is
            taken for an iterable of `Content`.

    Returns:
        The values, in their order.
    """
    is_single = isinstance(values, (str, Mapping, LangChainDocument, Document, BaseMessage))
    return [values] if is_single else list(values)


def content_name(value: Any) -> str | None:
    """Return how errors name a value that cannot be converted.

    Args:
        value: Any `Content`, or an `InputError` in its place.

    Returns:
        The source or the id of a LangChain document, otherwise the beginning of the value; None for an `InputError`,
        which has a name already.
    """
    if isinstance(value, LangChainDocument):
        return str(value.metadata.get("source") or value.id or "a document without source and id")
    return None if isinstance(value, InputError) else reprlib.repr(value)


def _document_to_input(document: LangChainDocument, keys: MediaKeys) -> Any:
    content = from_langchain(document, keys).input
    if not content:
        names = ", ".join(map(repr, (*keys.image, *keys.video)))
        raise InputError(
            f"it is empty: it has no page_content, and no image or video in its metadata under {names}; "
            "name other keys with media_keys"
        )
    return content


def _text_to_input(text: str) -> str | dict[str, str]:
    encoded_image = image_data_uri(text)
    return text if encoded_image is None else {"image": encoded_image}


def _blocks_to_input(blocks: Iterable[Any]) -> dict[str, list[Any]]:
    """Return one input with the texts, images and videos of a message's content blocks."""
    parts: dict[str, list[Any]] = {"text": [], "image": [], "video": []}
    for block in _standard_blocks(blocks):
        kind = _block_kind(block)
        if kind == "text":
            parts["text"].append(_block_text(block))
        elif kind == "image":
            parts["image"].append(_block_media(block, kind))
        else:
            # Not as a str: a list of str under "video" may also be the frames of one video.
            parts["video"].append(as_video(_block_media(block, kind)))
    return {kind: values for kind, values in parts.items() if values}


def _standard_blocks(blocks: Iterable[Any]) -> list[Mapping[str, Any]]:
    """Convert blocks of Anthropic, OpenAI, Bedrock and LangChain 0 to LangChain's standard, by LangChain's own code."""
    content: list[str | dict[str, Any]] = []
    for block in blocks:
        if not isinstance(block, (str, Mapping)):
            raise InputError(f"a content block is a mapping with a type, or a str; this is {type(block).__name__}")
        content.append(block if isinstance(block, str) else dict(block))
    standard_blocks: list[Mapping[str, Any]] = []
    for standard_block in HumanMessage(content=content).content_blocks:
        # Blocks that LangChain has no conversion for: "input_image" of OpenAI, "media" of Gemini, "video_url" of vLLM.
        value = standard_block["value"] if standard_block["type"] == "non_standard" else standard_block
        standard_blocks.append(value)
    return standard_blocks


def _block_kind(block: Mapping[str, Any]) -> str:
    kind = str(block.get("type")).removeprefix("input_").removesuffix("_url").removesuffix("-plain")
    if kind in ("file", "media"):
        kind = str(block.get("mime_type")).partition("/")[0]
    if kind not in ("text", "image", "video"):
        mime_type = f" and MIME type {block['mime_type']!r}" if "mime_type" in block else ""
        raise InputError(
            f"a content block of type {block.get('type')!r}{mime_type} cannot be embedded; use blocks of text, image "
            "and video"
        )
    return kind


def _block_text(block: Mapping[str, Any]) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise InputError("the text block has no text")
    return text


def _block_media(block: Mapping[str, Any], kind: str) -> str | bytes:
    """Return the media reference of an image or video block: its URL, its bytes, or its data as a data URI."""
    encoded = block.get("base64") or block.get("data")
    if isinstance(encoded, bytes):
        return encoded
    if isinstance(encoded, str):
        return f"data:{block.get('mime_type') or kind};base64,{encoded}"
    # OpenAI: {"type": "image_url", "image_url": {"url": ...}}, {"type": "input_image", "image_url": ...}
    url = block.get("url") or block.get(f"{kind}_url") or block.get("file_uri")
    url = url.get("url") if isinstance(url, Mapping) else url
    if not isinstance(url, str):
        raise InputError(
            f"the {kind} block has neither url nor base64; a block with a file_id cannot be used, because the file "
            "is not on this machine"
        )
    return url

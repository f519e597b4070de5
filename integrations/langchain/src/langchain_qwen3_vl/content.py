"""LangChain's documents and content blocks, and this package's documents and inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import BaseMessage

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys, document_from_metadata
from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.inputs import Input, as_video
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, require_folders

Content: TypeAlias = "Input | LangChainDocument | Document | BaseMessage | list[str | dict[str, Any]]"
"""What may be embedded, asked or judged: an input of `qwen3vl`, a document, a message, or a list of content blocks."""
SIDE = 1024
"""Pixels of the longer side of a picture for a chat model."""


def to_langchain(document: Document) -> LangChainDocument:
    """The text in `page_content`, everything else in metadata, media as references under `image` and `video`."""
    return LangChainDocument(id=document.id, **document.to_payload())


def from_langchain(document: LangChainDocument, keys: MediaKeys = DEFAULT_KEYS) -> Document:
    """The document as `qwen3vl` has it; `to_langchain`'s come back as they were.

    Raises `InputError` where a reference is not a str.
    """
    return document_from_metadata(document.page_content, document.metadata, keys)


def as_input(value: Any, keys: MediaKeys = DEFAULT_KEYS) -> Any:
    """An input of `qwen3vl`.  What is of no known kind is handed on, for the core to take or to refuse."""
    if isinstance(value, str):
        return value
    if isinstance(value, LangChainDocument):
        return from_langchain(value, keys).input
    if isinstance(value, Document):
        return value.input
    if isinstance(value, BaseMessage):
        value = value.content
        if isinstance(value, str):
            return value
    if isinstance(value, Mapping) and "type" in value:
        value = [value]
    return _fused(value) if isinstance(value, (list, tuple)) else value


def as_list(values: Any) -> list[Any]:
    """The inputs of a call; a single one stands for itself."""
    single = isinstance(values, (str, Mapping, LangChainDocument, Document, BaseMessage))
    return [values] if single else list(values)


def input_or_error(value: Any, keys: MediaKeys) -> Any:
    """An input of `qwen3vl`, or the error that it is, which the core reports in its place."""
    try:
        return as_input(value, keys)
    except InputError as error:
        if isinstance(value, LangChainDocument):
            error.source = str(value.metadata.get("source") or value.id or "a document without source and id")
        return error


def _fused(blocks: Iterable[Any]) -> dict[str, list[Any]]:
    """One input of a message's content blocks."""
    fused: dict[str, list[Any]] = {"text": [], "image": [], "video": []}
    for block in blocks:
        if isinstance(block, str):
            fused["text"].append(block)
            continue
        if not isinstance(block, Mapping):
            raise InputError(f"a content block is a mapping with a type, or a str; this is {type(block).__name__}")
        kind = _kind(block)
        if kind == "text":
            fused[kind].append(_text(block))
        else:
            # A list of strings under "video" might be taken for the frames of one clip.
            fused[kind].append(_media(block, kind) if kind == "image" else as_video(_media(block, kind)))
    return {kind: held for kind, held in fused.items() if held}


def _kind(block: Mapping[str, Any]) -> str:
    kind = str(block.get("type")).removesuffix("_url")
    if kind == "file":
        kind = str(block.get("mime_type")).partition("/")[0]
    if kind not in ("text", "image", "video"):
        raise InputError(f"a content block of type {block.get('type')!r} cannot be embedded: text, image and video can")
    return kind


def _text(block: Mapping[str, Any]) -> str:
    text = block.get("text")
    if not isinstance(text, str):
        raise InputError("the text block has no text")
    return text


def _media(block: Mapping[str, Any], kind: str) -> str:
    """The reference of an image or video block: its URL, or its data as a data URI."""
    encoded = block.get("base64") or block.get("data")
    if isinstance(encoded, str):
        return f"data:{block.get('mime_type') or kind};base64,{encoded}"
    # Chat models of other makers write {"type": "image_url", "image_url": {"url": …}}.
    url = block.get("url") or block.get(f"{kind}_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if not isinstance(url, str):
        raise InputError(f"the {kind} block has neither url nor base64; a file_id names a file that is not here")
    return url


def content_blocks(
    documents: Iterable[LangChainDocument],
    *,
    media_keys: MediaKeys = DEFAULT_KEYS,
    policy: MediaPolicy = UNTRUSTED_POLICY,
    side: int = SIDE,
) -> list[dict[str, Any]]:
    """Documents as content blocks for a chat model: texts, pictures and pages as JPEG, clips as four frames in one.

    side: pixels of a picture's longer side, at most.

    A picture that cannot be read is left out, with a warning in the log.
    """
    from qwen3vl.media.preview import data_uri, preview

    require_folders(policy)
    blocks: list[dict[str, Any]] = []
    for document in documents:
        if document.page_content:
            blocks.append({"type": "text", "text": document.page_content})
        held = from_langchain(document, media_keys)
        for medium in (replace(held, video=None), replace(held, image=None)):
            picture = preview(medium, policy, side)
            uri = None if picture is None else data_uri(picture)
            if uri is not None:
                blocks.append({"type": "image", "base64": uri.partition(",")[2], "mime_type": "image/jpeg"})
    return blocks

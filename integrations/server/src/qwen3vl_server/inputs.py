"""What clients send as one input, in the forms of all dialects, parsed into the engine's `Item`.

| form | dialect |
| --- | --- |
| `"text"` | all |
| `"data:image/…"` | Jina (`/v1/embeddings`) |
| `{"text": …, "image": …, "video": …, "instruction": …, "fps": …, "max_frames": …}` | ours; Jina |
| `{"content": [parts]}` | Cohere, Voyage, vLLM (`/rerank`, `/score`) |
| `{"type": "image_url", …}`, a content part alone | vLLM (`/rerank`, `/score`) |
| `[messages]`, `{"messages": [messages]}` | vLLM (`/v1/embeddings`), Dify |

`instruction`, `fps` and `max_frames` may also be beside `content`, `messages`, `role` and the `type` of a part alone,
and the two for videos in each part, as Qwen has them.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen3vl.adapters.encoded_images import image_data_uri
from qwen3vl.errors import InputError, ItemError
from qwen3vl.inputs import Input, Item, as_image, as_item, as_video
from qwen3vl.inputs.items import ImageReference, VideoReference, shorten
from qwen3vl_server.errors import RequestError

_FIELDS = ("instruction", "fps", "max_frames")
_CONTENT_KEYS = ("messages", "content", "text", "image", "video")
_VIDEO_FIELDS = ("fps", "max_frames")
_NAME_CHARACTERS = 80
_PART_KINDS = {
    "text": "text",
    **dict.fromkeys(("image_url", "image", "image_base64"), "image"),
    **dict.fromkeys(("video_url", "video", "video_base64"), "video"),
}
"""Types of content parts. A part has its value under a key of the same name."""


@dataclass(frozen=True, slots=True)
class ParsedInputs:
    """The inputs of a request.

    Attributes:
        items: An item for each input, or an `InputError` in its place.
        errors: The errors, sorted by index.
    """

    items: list[Input]
    errors: tuple[ItemError, ...]

    def merge(self, errors: Sequence[ItemError]) -> tuple[ItemError, ...]:
        """Return the engine's errors, with those of here in place of the engine's for the same inputs.

        Args:
            errors: The engine's errors, sorted by index.

        Returns:
            All errors, sorted by index.
        """
        own = {error.index: error for error in self.errors}
        return tuple(own.get(error.index, error) for error in errors)


def parse_inputs(values: Sequence[Any], parse: Callable[[Any], Item]) -> ParsedInputs:
    """Parse the inputs of a request.

    Args:
        values: Inputs as JSON has them.
        parse: Parses one: `parse_input`, or the dialect's own.

    Returns:
        The items, and the errors of inputs that are none.
    """
    items: list[Input] = []
    errors: list[ItemError] = []
    for index, value in enumerate(values):
        try:
            items.append(parse(value))
        except InputError as error:
            items.append(error)
            item_error = ItemError(index, reprlib.repr(value), str(error))
            item_error.__cause__ = error
            errors.append(item_error)
    return ParsedInputs(items, tuple(errors))


def parse_input(value: Any) -> Item:
    """Parse one input.

    Args:
        value: One of the forms above.

    Returns:
        The item. Its media are bytes or http(s) URLs, which the media policy of the model allows or not.

    Raises:
        InputError: The value has another form, or refers to a file.
    """
    item = _parse(value)
    for reference in _references(item):
        if reference.origin == "path":
            raise InputError(
                f"{shorten(reference.name, _NAME_CHARACTERS)} is the name of a file, and the server opens no files; "
                "send the file's content as a data URI, data:image/png;base64,…"
            )
    return item


def parse_text_or_data_uri(value: Any) -> Item:
    """Parse one input of a dialect in which a text that is the data URI of an image is that image.

    Args:
        value: As for `parse_input`.

    Returns:
        As `parse_input`. A data URI whose content does not begin as image files do is a text.

    Raises:
        InputError: As `parse_input`.
    """
    if is_data_uri(value) and image_data_uri(value.partition(";base64,")[2]):
        return parse_input({"image": value})
    return parse_input(value)


def is_data_uri(value: Any) -> bool:
    """Return whether an input may be the data URI of an image, which takes time to parse.

    Args:
        value: An input as JSON has it.

    Returns:
        True for texts that begin as one.
    """
    return isinstance(value, str) and value.startswith("data:image/")


def as_documents(value: Any) -> list[Any]:
    """Return the documents, or the queries, of a request.

    Args:
        value: A list of inputs, a single input, or vLLM's `{"content": [parts]}`, in which each part is an input.

    Returns:
        The inputs.
    """
    documents = value.get("content") if isinstance(value, Mapping) else value
    if not isinstance(documents, list):
        return [value]
    fields = {name: value[name] for name in _FIELDS if name in value} if isinstance(value, Mapping) else {}
    return [{"content": [part], **fields} for part in documents] if fields else documents


def _parse(value: Any) -> Item:
    if isinstance(value, (str, InputError)):
        return as_item(value)
    if isinstance(value, list):
        return _parse_chat(value, {})
    if not isinstance(value, Mapping):
        raise InputError(f"an input is a text, an object or a list of chat messages; this is {reprlib.repr(value)}")
    if "messages" in value:
        return _parse_chat(value["messages"], _fields_beside("messages", value))
    if "role" in value:
        return _parse_chat([value], {})
    if "content" in value:
        return _parse_content([value["content"]], _fields_beside("content", value))
    if "type" in value:
        fields: dict[str, Any] = {}
        _add_fields(fields, value, _FIELDS)
        return _parse_content([[value]], fields)
    image = value.get("image")
    if image is not None:
        value = {**value, "image": [_image(part) for part in (image if isinstance(image, list) else [image])]}
    return as_item(value)


def _image(value: Any) -> Any:
    """Return an image for `as_image`; the base64 of one without `data:` before it, as Jina has it, is accepted."""
    return (image_data_uri(value) or value) if isinstance(value, str) else value


def _fields_beside(key: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an input that are beside its content; raise `InputError` if there is a second content.

    Other keys are the client's own, such as the id of a document, which the answer repeats.
    """
    second = [name for name in _CONTENT_KEYS if name != key and value.get(name) is not None]
    if second:
        raise InputError(f"{second[0]} is beside {key}, which has the whole input; move it into {key}")
    fields: dict[str, Any] = {}
    _add_fields(fields, value, _FIELDS)
    return fields


def _add_fields(fields: dict[str, Any], source: Mapping[str, Any], names: Sequence[str]) -> None:
    """Add fields of an input from one of the places where they may be."""
    for name in names:
        found = source.get(name)
        if found is not None and fields.setdefault(name, found) != found:
            raise InputError(
                f"{name} is {reprlib.repr(fields[name])} in one place of the input and {reprlib.repr(found)} in "
                "another; an input has one"
            )


def _parse_chat(messages: Any, fields: dict[str, Any]) -> Item:
    """Parse a chat, whose system message is the instruction. An empty answer at its end is the model's place."""
    if not isinstance(messages, list) or not all(isinstance(message, Mapping) for message in messages):
        raise InputError("a chat is a list of messages, each an object with role and content")
    contents: dict[Any, list[Any]] = {"system": [], "user": [], "assistant": []}
    for message in messages:
        role = message.get("role")
        if not isinstance(role, str) or role not in contents:
            raise InputError(f"the role of a message is system, user or assistant; this is {reprlib.repr(role)}")
        contents[role].append(message.get("content"))
        _add_fields(fields, message, _FIELDS)
    if len(contents["user"]) != 1 or len(contents["system"]) > 1:
        raise InputError(
            "a chat is one input: one message of the user, perhaps with a system message before it, which is the "
            f"instruction. This one has {len(contents['user'])} of the user and {len(contents['system'])} of the "
            "system; send a chat for each input"
        )
    if any(text for _, text in _parts(contents["assistant"], {})):
        raise InputError("the message of the assistant is the model's to write, and must be empty; leave it out")
    instructions = list(_parts(contents["system"], {}))
    if any(kind != "text" for kind, _ in instructions):
        raise InputError("the system message is the instruction, and has only texts; move media to the user's message")
    _add_fields(fields, {"instruction": "".join(text for _, text in instructions) or None}, _FIELDS)
    return _parse_content(contents["user"], fields)


def _parse_content(contents: Sequence[Any], fields: dict[str, Any]) -> Item:
    parts = list(_parts(contents, fields))
    mapping: dict[str, Any] = {
        "text": [value for kind, value in parts if kind == "text" and value],
        "image": [as_image(_image(value)) for kind, value in parts if kind == "image"],
        "video": [as_video(value) for kind, value in parts if kind == "video"],
        **fields,
    }
    return as_item(mapping)


def _parts(contents: Sequence[Any], fields: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the kind and value of each part of contents, which are texts or lists of parts; add what is beside them."""
    for content in contents:
        if isinstance(content, str):
            yield "text", content
            continue
        if not isinstance(content, list):
            raise InputError(f"a content is a text or a list of parts; this is {reprlib.repr(content)}")
        for part in content:
            yield _parse_part(part)
            if isinstance(part, Mapping):
                _add_fields(fields, part, _VIDEO_FIELDS)


def _parse_part(part: Any) -> tuple[str, str]:
    if isinstance(part, str):
        return "text", part
    part_type = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part_type, str) or part_type not in _PART_KINDS:
        raise InputError(
            f"a part of a content is an object whose type is one of {', '.join(_PART_KINDS)}; this is "
            f"{reprlib.repr(part)}"
        )
    value = part.get(part_type)
    if isinstance(value, Mapping):  # OpenAI's form; Voyage's and Qwen's have the URL itself
        value = value.get("url")
    if not isinstance(value, str):
        raise InputError(f"the part of type {part_type} has no {part_type}, which is a text or an object with a url")
    return _PART_KINDS[part_type], value


def _references(item: Item) -> Iterator[ImageReference | VideoReference]:
    """Yield all references to media, those of frames too."""
    yield from item.images
    for video in item.videos:
        yield video
        yield from video.frames


async def parse_items_async(values: Sequence[Any], parse: Callable[[Any], Item] = parse_input) -> ParsedInputs:
    """Parse the inputs of a request here if that is quick. Base64 is decoded on a thread, off the event loop.

    Args:
        values: Inputs as JSON has them.
        parse: Parses one input.

    Returns:
        The inputs and errors.
    """
    if all(_is_text(value) for value in values):
        return parse_inputs(values, parse)
    return await asyncio.to_thread(parse_inputs, values, parse)


async def parse_query_async(value: Any, param: str) -> Item:
    """Parse the query of a request as `parse_items_async` does its documents.

    Args:
        value: An input as JSON has it.
        param: Field of the body that has it, for the error.

    Returns:
        The query.

    Raises:
        RequestError: It cannot be parsed.
    """
    try:
        return parse_input(value) if _is_text(value) else await asyncio.to_thread(parse_input, value)
    except InputError as error:
        raise RequestError(400, f"the query: {error}", param=param) from error


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not is_data_uri(value)

"""Requests in the package's own dialect: JSON, perhaps with contents of media behind it, to which items refer."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qwen3vl.errors import InputError
from qwen3vl.inputs import ImageReference, VideoReference, as_image, as_video
from qwen3vl.wire import MEDIA_TYPE, MISSING_CONTENTS, decode_request, media_name
from qwen3vl_server.byte_cache import ByteCache
from qwen3vl_server.errors import RequestError

BodyT = TypeVar("BodyT", bound=BaseModel)

_QUICK_BYTES = 64 * 2**10
"""Size of a request that is decoded on the event loop's thread; the digests of a larger one take too long."""
_JSON = re.compile(r"application/(.+\+)?json", re.IGNORECASE)


class _ImageContent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    content: str
    page: int | None = Field(None, ge=1)


class _VideoContent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    content: str
    start: float | None = Field(None, ge=0, allow_inf_nan=False)
    end: float | None = Field(None, ge=0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, eq=False)
class NativeRequest(Generic[BodyT]):
    """A request.

    Attributes:
        body: Its JSON.
        contents: The contents behind it, by their digests.
    """

    body: BodyT
    contents: Mapping[str, bytes]

    def find_contents(self, items: Sequence[Any], cache: ByteCache) -> dict[str, bytes]:
        """Find the contents to which items refer, in this request and among those of earlier ones.

        Args:
            items: Items as JSON has them.
            cache: The contents of earlier requests; it gets those of this one.

        Returns:
            The contents by their digests.

        Raises:
            RequestError: Contents are missing; the error has their digests.
        """
        found: dict[str, bytes] = {}
        missing = []
        for digest in dict.fromkeys(digest for item in items for digest in _digests(item)):
            content = self.contents.get(digest, cache.get(digest))
            if content is None:
                missing.append(digest)
                continue
            found[digest] = content
            cache.put(digest, content)
        if missing:
            raise RequestError(
                409,
                f"the server lacks {len(missing)} of the contents to which the request refers; send them behind its "
                f"JSON, as {MEDIA_TYPE}",
                code=MISSING_CONTENTS,
                details={"missing": missing},
            )
        return found


async def read_request(request: Request, body_type: type[BodyT]) -> NativeRequest[BodyT]:
    """Read a request.

    Args:
        request: The request.
        body_type: What its JSON has to be.

    Returns:
        The JSON, and the contents behind it.

    Raises:
        RequestError: The contents are not as the JSON says.
        RequestValidationError: There is no JSON, or it is of another form.
    """
    data = await request.body()
    content_type = request.headers.get("content-type", "").partition(";")[0].strip()
    contents: Mapping[str, bytes] = {}
    try:
        if content_type == MEDIA_TYPE:
            is_quick = len(data) <= _QUICK_BYTES
            fields, contents = decode_request(data) if is_quick else await asyncio.to_thread(decode_request, data)
        elif _JSON.fullmatch(content_type):
            fields = json.loads(data)
        else:
            raise RequestValidationError([], body=data)
    except (ValueError, RecursionError) as error:
        if content_type != MEDIA_TYPE:
            raise RequestValidationError([], body=data) from error
        raise RequestError(400, f"the body is not of the type {MEDIA_TYPE}: {error}") from error
    try:
        return NativeRequest(body_type.model_validate(fields), contents)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors(include_url=False)]
        raise RequestValidationError(problems, body=fields) from error


def describe_body(body_type: type[BaseModel]) -> dict[str, Any]:
    """Return the description of a request for OpenAPI.

    Args:
        body_type: What its JSON has to be.

    Returns:
        The argument `openapi_extra` of a route.
    """
    description = f"As {MEDIA_TYPE}, the contents of media follow the JSON, which then is one line."
    content = {"application/json": {"schema": body_type.model_json_schema()}}
    return {"requestBody": {"required": True, "description": description, "content": content}}


def _digests(item: Any) -> Iterator[str]:
    """Yield the digests to which an item refers."""
    for media in (*_media_of(item, "image"), *_media_of(item, "video")):
        for reference in media if isinstance(media, list) else [media]:  # frames
            if isinstance(reference, dict) and isinstance(reference.get("content"), str):
                yield reference["content"]


def _media_of(item: Any, name: str) -> list[Any]:
    media = item.get(name) if isinstance(item, dict) else None
    if media is None:
        return []
    return media if isinstance(media, list) else [media]


def resolve_item(item: Any, contents: Mapping[str, bytes], role: str = "") -> Any:
    """Replace the references to contents in an item.

    Args:
        item: An item as JSON has it.
        contents: What `NativeRequest.find_contents` has found for it.
        role: What stands before the names of its media; see `QUERY_ROLE`.

    Returns:
        An item whose media are references with bytes; an `InputError` in place of one that refers to none.
    """
    if next(_digests(item), None) is None:
        return item
    try:
        images, videos = enumerate(_media_of(item, "image")), enumerate(_media_of(item, "video"))
        return {
            **item,
            "image": [_resolve_image(image, media_name(role, "image", index), contents) for index, image in images],
            "video": [_resolve_video(video, media_name(role, "video", index), contents) for index, video in videos],
        }
    except InputError as error:
        return error
    except ValidationError as error:
        problem = error.errors()[0]
        return InputError(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}; a reference to a content is "
            '{"content": DIGEST}, for an image with "page", for a video with "start" and "end" where they are wanted'
        )


def _resolve_image(value: Any, name: str, contents: Mapping[str, bytes]) -> ImageReference:
    if not isinstance(value, dict):
        return as_image(value)
    image = _ImageContent.model_validate(value)
    return ImageReference("bytes", contents[image.content], name, image.page)


def _resolve_video(value: Any, name: str, contents: Mapping[str, bytes]) -> VideoReference:
    if isinstance(value, list) and value:
        frames = tuple(_resolve_image(frame, name, contents) for frame in value)
        return VideoReference("pixels", None, name, frames=frames)
    if not isinstance(value, dict):
        return as_video(value)
    video = _VideoContent.model_validate(value)
    return VideoReference("bytes", contents[video.content], name, video.start, video.end)

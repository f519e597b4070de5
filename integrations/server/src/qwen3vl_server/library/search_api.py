"""`/v1/search`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.dependencies import LibraryDependency
from qwen3vl_server.library.failures import store_failures
from qwen3vl_server.library.multipart import Part, read_parts
from qwen3vl_server.library.requests import is_form, read_json, validate
from qwen3vl_server.library.search import MAX_LIMIT, SearchRequest, search
from qwen3vl_server.library.shapes import FoundDocument, HitShaper
from qwen3vl_server.responses import AsciiJSONResponse

router = APIRouter(tags=["Library"])

_QUERY_FIELDS = ("text", "image", "video")


class SearchBody(BaseModel):
    """A search. `text`, `image` and `video` together are one query, as in a prompt."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text": "a red circle", "limit": 5},
                {"image": EXAMPLE_IMAGE, "filter": {"kind": ["page", "picture"]}},
            ]
        }
    )

    text: str | None = None
    image: str | None = Field(None, description="A data URI, or a URL where the server fetches URLs.")
    video: str | None = Field(None, description="As for image.")
    like: str | None = Field(None, description="Id of a point, in place of a query: more like this.")
    limit: int = Field(10, ge=1, le=MAX_LIMIT, description="Maximum number of hits.")
    offset: int = Field(0, ge=0, le=10**6, description="Number of hits to skip.")
    filter: dict[str, Any] | None = Field(
        None,
        description="Values that metadata must have: a value, a list of which it must have one, or a range with gt, "
        "gte, lt and lte.",
        examples=[{"kind": ["page", "picture"], "page": {"gte": 3}}],
    )
    mode: Literal["dense", "text", "hybrid"] | None = Field(
        None, description="By vectors, words or both; null is hybrid where the store has words, else dense."
    )
    rerank: bool | None = Field(None, description="Whether the reranker sorts the hits; null is whether there is one.")


class SearchAnswer(BaseModel):
    """The hits, best first."""

    hits: list[FoundDocument]
    mode: Literal["dense", "text", "hybrid"]
    reranked: bool
    seconds: float = Field(description="Duration of the search.")


class Searchable(BaseModel):
    """What can be searched, and how."""

    points: int
    embedder: str
    reranker: str | None
    modes: list[str]
    uploads: bool = Field(description="Whether documents may be uploaded.")
    max_upload_bytes: int


@router.get("/v1/search", response_model=Searchable, summary="What can be searched")
async def describe(library: LibraryDependency) -> dict[str, Any]:
    """Return what the store has and how it can be searched."""
    models = library.service.models
    with store_failures():
        points = await library.store.acount()
    return {
        "points": points,
        "embedder": models["embedder"].name,
        "reranker": models["reranker"].name if "reranker" in models else None,
        "modes": ["dense", "hybrid", "text"] if library.has_words else ["dense"],
        "uploads": library.ingestion is not None,
        "max_upload_bytes": library.settings.max_upload_bytes,
    }


_SCHEMA = SearchBody.model_json_schema()
_REQUEST_BODY = {
    "required": True,
    "content": {
        "application/json": {"schema": _SCHEMA},
        "multipart/form-data": {
            "schema": {
                **_SCHEMA,
                "description": "The same fields; image and video may be files, and filter is JSON.",
            }
        },
    },
}


@router.post(
    "/v1/search",
    response_model=SearchAnswer,
    response_model_exclude_none=False,
    summary="Search the store",
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def search_store(request: Request, library: LibraryDependency) -> AsciiJSONResponse:
    """Search by text, picture, video or a mixture, or for what is like a stored document."""
    start_s = perf_counter()
    body, media = await _read_body(request)
    texts = {name: value for name in _QUERY_FIELDS if (value := getattr(body, name))}
    query = SearchRequest({**texts, **media}, body.like, body.limit, body.offset, body.filter, body.mode, body.rerank)
    result = await search(library, query)
    shaper = HitShaper(library.signer, request.scope.get("root_path", ""))
    hits = [shaper.hit(rank, hit) for rank, hit in enumerate(result.hits, start=body.offset + 1)]
    seconds = round(perf_counter() - start_s, 4)
    return AsciiJSONResponse({"hits": hits, "mode": result.mode, "reranked": result.reranked, "seconds": seconds})


async def _read_body(request: Request) -> tuple[SearchBody, dict[str, bytes]]:
    """Return the fields, and the media that were sent as files."""
    content_type = request.headers.get("content-type", "")
    if not is_form(content_type):
        return validate(SearchBody, await read_json(request)), {}
    fields, media = await _read_form(request.stream(), content_type)
    return validate(SearchBody, fields), media


async def _read_form(chunks: AsyncIterator[bytes], content_type: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    parts: list[tuple[Part, bytearray]] = []
    async for event in read_parts(chunks, content_type):
        if isinstance(event, Part):
            parts.append((event, bytearray()))
        else:
            parts[-1][1].extend(event)
    fields: dict[str, Any] = {}
    media: dict[str, bytes] = {}
    for part, content in parts:
        if part.filename is not None:
            if part.name not in ("image", "video"):
                raise RequestError(400, f"the file {part.name!r} has no use: image and video may be files")
            media[part.name] = bytes(content)
            continue
        try:
            value = content.decode()
            fields[part.name] = json.loads(value) if part.name == "filter" else value
        except (ValueError, RecursionError) as error:
            raise RequestError(
                400, f"{part.name} is no valid {'JSON' if part.name == 'filter' else 'UTF-8'}"
            ) from error
    return fields, media

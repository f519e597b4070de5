"""`/v1/media`: what the store's points show, by the id of the point; no request names a file."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from qwen3vl_server.asgi import HEADERS_ONLY
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.dependencies import LibraryDependency
from qwen3vl_server.library.ranges import PartialResponse
from qwen3vl_server.library.rendering import Shown, open_picture
from qwen3vl_server.library.shapes import MEDIA_PATH

router = APIRouter(prefix=MEDIA_PATH, tags=["Library"])

_HEADERS = {
    "cache-control": "private, max-age=3600",
    "content-security-policy": "default-src 'none'; sandbox",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


@router.get("/{point_id}/thumbnail", response_class=Response, summary="A small picture of a document")
async def thumbnail(point_id: str, request: Request, library: LibraryDependency) -> Response:
    """Return a JPEG of a picture, a page or of frames of a clip."""
    return _respond(await library.thumbnail(point_id), request)


@router.get("/{point_id}/image", response_class=Response, summary="A document's picture, or its page as a picture")
async def image(point_id: str, request: Request, library: LibraryDependency) -> Response:
    """Return the picture as it was stored, or a PDF page at full size."""
    return _respond(await library.show(await library.document(point_id), open_picture), request)


@router.get("/{point_id}/video", response_class=Response, summary="The video of a clip")
async def video(point_id: str, request: Request, library: LibraryDependency) -> Response:
    """Return the whole video of a clip, or the part of the file that the header Range asks for."""
    header = request.headers.get("range")
    is_beginning = header is None or header.startswith("bytes=0-")
    return _respond(await library.video(point_id, is_beginning=is_beginning), request)


def _respond(shown: Shown, request: Request) -> Response:
    try:
        return PartialResponse(
            shown.content,
            shown.media_type,
            request.headers.get("range"),
            _HEADERS,
            headers_only=request.scope.get(HEADERS_ONLY, False),
        )
    except OSError as error:
        raise RequestError(404, "the media of this point cannot be read any more") from error

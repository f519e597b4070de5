"""Searches of the store: by texts and media, or for what is like a stored document."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

from qwen3vl.errors import InputError
from qwen3vl.inputs import Item
from qwen3vl.stores import Hit, Mode, Vector
from qwen3vl_server.errors import RequestError, query_failure
from qwen3vl_server.inputs import parse_input
from qwen3vl_server.library.failures import store_failures
from qwen3vl_server.library.library import Library

MAX_LIMIT = 1000
"""Maximum number of hits of an answer."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a client searches for.

    Attributes:
        query: A mapping of text, image and video, as `qwen3vl_server.inputs.parse_input` accepts it; empty with `like`.
        like: Id of the point to which hits are to be similar; None to search by the query.
        limit: Maximum number of hits.
        offset: Number of hits to skip.
        where: A `Where`; None for all documents.
        mode: What is compared; None is hybrid if there are words on both sides, else dense.
        rerank: Whether the reranker sorts the hits; None is whether there is one.
    """

    query: dict[str, Any]
    like: str | None = None
    limit: int = 10
    offset: int = 0
    where: dict[str, Any] | None = None
    mode: Mode | None = None
    rerank: bool | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What was found.

    Attributes:
        hits: The hits, best first.
        mode: What was compared.
        reranked: Whether the reranker has sorted them.
    """

    hits: list[Hit]
    mode: Mode
    reranked: bool


async def search(library: Library, request: SearchRequest) -> SearchResult:
    """Search a library.

    Args:
        library: The library.
        request: What is searched for.

    Returns:
        The hits.

    Raises:
        RequestError: The query, the filter or another field cannot be used (status 400), there is no such point (404),
            too much is asked for (422), or the store or a model fails.
    """
    if bool(request.query) == (request.like is not None):
        raise RequestError(400, "send text, image or video to search by, or like: the id of a point; not both")
    rerank = library.reranker is not None if request.rerank is None else request.rerank
    mode = _mode(library, request)
    if library.embedder.closed:
        raise RequestError(503, "the embedder is closed; the server is shutting down")
    with library.service.waiting_items.lease() as lease:
        lease.add(1 + (_num_candidates(library, request) if rerank else 0))
        try:
            with store_failures():
                if request.query:
                    hits = await _search(library, request, mode, rerank)
                else:
                    hits = await _like(library, request, rerank)
        except InputError as error:
            raise query_failure(error) from error
        except ValueError as error:
            raise RequestError(400, str(error)) from error
    return SearchResult(hits, mode, rerank)


def _mode(library: Library, request: SearchRequest) -> Mode:
    has_text = bool(str(request.query.get("text") or "").strip())
    if request.mode in (None, "dense"):
        return "hybrid" if request.mode is None and library.has_words and has_text else "dense"
    if request.like is not None or not has_text:
        raise RequestError(400, f"mode={request.mode!r} searches by words, and there is no text", param="mode")
    if not library.has_words:
        raise RequestError(
            400,
            f"mode={request.mode!r} needs a store that can be searched by words; this one was made without --hybrid",
            param="mode",
        )
    return request.mode


def _num_candidates(library: Library, request: SearchRequest) -> int:
    """Return how many hits the reranker scores at most, and check that they are not too many."""
    if library.reranking is None:
        raise RequestError(400, "this server has no reranker; start it with --reranker MODEL", param="rerank")
    num_candidates = max(request.limit + request.offset, library.reranking.candidates)
    if num_candidates > library.settings.max_items:
        raise RequestError(
            422,
            f"limit and offset ask for {num_candidates} hits to be reranked, and at most {library.settings.max_items} "
            "are; lower them, or send rerank: false",
            param="limit",
            code="too_many_items",
        )
    return num_candidates


async def _search(library: Library, request: SearchRequest, mode: Mode, rerank: bool) -> list[Hit]:
    query: Item = await asyncio.to_thread(parse_input, request.query)  # media are decoded from base64
    retriever = (library.reranking if rerank else None) or library.by_vectors
    return await retriever.asearch(query, request.limit, offset=request.offset, where=request.where, mode=mode)


async def _like(library: Library, request: SearchRequest, rerank: bool) -> list[Hit]:
    """Search by the vector of a stored point, which is not embedded again, and leave the point out."""
    assert request.like is not None  # noqa: S101 (as `search` has checked)
    document = await library.document(request.like)
    vectors = await library.store.avectors([request.like])
    vector = vectors[request.like]
    if not (rerank and library.reranking is not None):
        return await _nearest_others(library, request, vector, request.limit, request.offset)
    needed = max(request.limit + request.offset, library.reranking.candidates)
    hits = await _nearest_others(library, request, vector, needed, 0)
    hits = await library.reranking.arerank(document.input, hits)
    return hits[request.offset : request.offset + request.limit]


async def _nearest_others(
    library: Library, request: SearchRequest, vector: Vector, limit: int, offset: int
) -> list[Hit]:
    """Return the points nearest to that of `like`, which is none of them.

    Args:
        library: The library.
        request: It has the id and the filter.
        vector: The vector of the point.
        limit: Maximum number of hits.
        offset: Number of hits to skip. They are not read, but for the nearest ones.

    Returns:
        The hits, nearest first.
    """
    search = partial(library.store.asearch, vector, where=request.where, mode="dense")
    # The nearest point is the point itself, or one that is equal to it, unless the filter leaves it out.
    num_nearest = min(offset, MAX_LIMIT)
    nearest = await search(num_nearest) if num_nearest else []
    start = offset + any(hit.id == request.like for hit in nearest)
    found = await search(limit + 1, offset=start)
    return [hit for hit in found if hit.id != request.like][:limit]

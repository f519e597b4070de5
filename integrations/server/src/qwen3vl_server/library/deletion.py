"""Deletes documents by source or id, and the files that they alone have shown."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.failures import store_failures
from qwen3vl_server.library.library import Library, is_point_id


async def delete(library: Library, sources: Sequence[str], ids: Sequence[str]) -> int:
    """Delete documents.

    Args:
        library: The library.
        sources: Sources, all of whose documents are deleted.
        ids: Ids of points; those of no point are ignored.

    Returns:
        The number of documents that were deleted.

    Raises:
        RequestError: Nothing is named (status 400), a source is being ingested (409), or the store fails.
    """
    if not sources and not ids:
        raise RequestError(400, "name what to delete: source=NAME or id=POINT; each may be given several times")
    with store_failures():
        documents = await library.store.adocuments([point_id for point_id in ids if is_point_id(point_id)])
        concerned = {*sources, *(document.source for document in documents.values())}
        async with nullcontext() if library.ingestion is None else library.ingestion.deleting(concerned):
            doomed = set(documents)
            for source in sources:
                doomed.update([point.id async for point in library.store.ascan({"source": source})])
            try:
                await library.store.adelete(sorted(doomed))
            finally:
                library.sources.forget()
            if library.ingestion is not None:
                await library.ingestion.forget_failed(sources)
                for source in concerned:
                    await library.ingestion.prune(source)
    return len(doomed)

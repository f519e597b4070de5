"""`/v1/documents`: ingest, follow, list and delete."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.deletion import delete
from qwen3vl_server.library.dependencies import LibraryDependency
from qwen3vl_server.library.failures import store_failures
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import Job
from qwen3vl_server.library.library import Library
from qwen3vl_server.library.requests import DOCUMENTS_PATH, is_form, read_json, validate
from qwen3vl_server.library.shapes import HitShaper, StoredDocument
from qwen3vl_server.library.uploads import Reference, ingest_form, ingest_references
from qwen3vl_server.responses import AsciiJSONResponse

router = APIRouter(prefix=DOCUMENTS_PATH, tags=["Library"])


class ReferenceBody(BaseModel):
    """A file that the server fetches, or that is in a data URI."""

    url: str = Field(description="An http(s) URL, where the server fetches URLs, or a data URI.")
    source: str | None = Field(None, description="The source of its documents; null is the URL.")
    metadata: dict[str, Any] = Field(default_factory=dict, description="Metadata of its documents.")


class DocumentsBody(BaseModel):
    """Files to ingest by reference."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"documents": [{"url": EXAMPLE_IMAGE, "source": "square.png"}]}]}
    )

    documents: list[ReferenceBody] = Field(min_length=1)


class Failure(BaseModel):
    """A document or source that could not be loaded, embedded or written."""

    source: str
    reason: str


class JobAnswer(BaseModel):
    """An ingestion."""

    id: str
    status: Literal["waiting", "running", "done", "failed"]
    sources: list[str]
    added: int
    unchanged: int
    replaced: int = Field(description="Documents of former versions of the sources that were deleted.")
    failed: list[Failure]
    error: str | None = Field(description="Why it has ended before all was tried.")


class JobsAnswer(BaseModel):
    """Ingestions, newest first."""

    jobs: list[JobAnswer]


class Source(BaseModel):
    """A source and the number of its documents."""

    source: str
    documents: int


class SourcesAnswer(BaseModel):
    """Sources, sorted by name."""

    sources: list[Source]
    total: int = Field(description="Number of sources that match, before limit and offset.")
    documents: int = Field(description="Number of documents of all sources.")


class Deleted(BaseModel):
    """How many documents were deleted."""

    deleted: int


_FORM_SCHEMA = {
    "type": "object",
    "properties": {
        "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "source": {"type": "array", "items": {"type": "string"}, "description": "A source for each file, or none."},
        "metadata": {"type": "string", "description": "A JSON object: metadata of all documents."},
    },
    "required": ["file"],
}
_REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM_SCHEMA},
        "application/json": {"schema": DocumentsBody.model_json_schema(ref_template="#/components/schemas/{model}")},
    },
}


@router.post(
    "",
    status_code=202,
    response_model=JobAnswer,
    summary="Ingest files",
    openapi_extra={"requestBody": _REQUEST_BODY},
)
async def add(request: Request, library: LibraryDependency) -> AsciiJSONResponse:
    """Accept files, which are ingested in the background. A source's new documents replace its former ones."""
    ingestion = _ingestion(library)
    ingestion.require_room()
    with library.uploads.lease() as lease:
        lease.add(1)
        if is_form(request.headers.get("content-type")):
            job = await ingest_form(request, library, ingestion)
            return AsciiJSONResponse(job.to_dict(), 202)
        references = await _read_references(request)
    job = await ingest_references(references, library, ingestion)
    return AsciiJSONResponse(job.to_dict(), 202)


@router.get("", response_model=SourcesAnswer, summary="List sources")
async def list_sources(
    library: LibraryDependency,
    contains: Annotated[str, Query(description="Only sources with this text in their names.")] = "",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    offset: Annotated[int, Query(ge=0)] = 0,
) -> AsciiJSONResponse:
    """List the sources of the stored documents; changes by others may take a minute to appear."""
    with store_failures():
        counts = await library.sources.get()
    text = contains.casefold()
    matching = [(source, count) for source, count in counts.items() if text in source.casefold()]
    return AsciiJSONResponse(
        {
            "sources": [{"source": source, "documents": count} for source, count in matching[offset : offset + limit]],
            "total": len(matching),
            "documents": sum(counts.values()),
        }
    )


@router.get("/jobs", response_model=JobsAnswer, summary="List ingestions")
async def list_jobs(library: LibraryDependency) -> AsciiJSONResponse:
    """List the ingestions that wait or run, and those that have finished of late."""
    return AsciiJSONResponse({"jobs": [job.to_dict() for job in _ingestion(library).jobs]})


@router.get("/jobs/{job_id}", response_model=JobAnswer, summary="Follow an ingestion")
async def get_job(job_id: str, library: LibraryDependency) -> AsciiJSONResponse:
    """Return how far an ingestion is."""
    job: Job | None = _ingestion(library).job(job_id)
    if job is None:
        raise RequestError(404, f"there is no ingestion {job_id!r}, or it has finished long ago", code="not_found")
    return AsciiJSONResponse(job.to_dict())


@router.get("/{point_id}", response_model=StoredDocument, summary="A document")
async def get_document(point_id: str, request: Request, library: LibraryDependency) -> AsciiJSONResponse:
    """Return a stored document by the id of its point."""
    shaper = HitShaper(library.signer, request.scope.get("root_path", ""))
    return AsciiJSONResponse(shaper.document(point_id, await library.document(point_id)))


@router.delete("", response_model=Deleted, summary="Delete documents")
async def delete_documents(
    library: LibraryDependency,
    source: Annotated[list[str] | None, Query(description="Sources, all of whose documents are deleted.")] = None,
    id: Annotated[list[str] | None, Query(description="Ids of points.")] = None,  # noqa: A002 (name of the parameter)
) -> AsciiJSONResponse:
    """Delete documents, and the uploaded files that none shows any more. What is not there is ignored."""
    return AsciiJSONResponse({"deleted": await library.finish(delete(library, source or [], id or []))})


def _ingestion(library: Library) -> Ingestion:
    if library.ingestion is None:
        raise RequestError(409, "this server takes no documents; start it with --media DIR, a folder for their files")
    return library.ingestion


async def _read_references(request: Request) -> list[Reference]:
    body = validate(DocumentsBody, await read_json(request))
    return [Reference(document.url, document.source, document.metadata) for document in body.documents]

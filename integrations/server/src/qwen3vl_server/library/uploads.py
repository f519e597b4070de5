"""What clients send to be ingested: files that are uploaded, and references that are fetched."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import Request

from qwen3vl.errors import InputError, StoreError
from qwen3vl.ingestion.validation import check_metadata
from qwen3vl.inputs import check_text
from qwen3vl.inputs.data_uri import decode_data_uri
from qwen3vl_server.errors import RequestError
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import Job, NewFile
from qwen3vl_server.library.library import Library
from qwen3vl_server.library.media_folder import IncomingFile, MediaFolder, full_disk_errors
from qwen3vl_server.library.media_types import suffix_for
from qwen3vl_server.library.multipart import Part, read_parts
from qwen3vl_server.library.requests import limited_chunks

_MAX_FIELD_BYTES = 2**16
"""Maximum size of a field that is no file."""
_MAX_SOURCE_CHARACTERS = 1000
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BUFFER_BYTES = 2**20
"""Bytes that are collected before they are written, in a thread."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference of a request.

    Attributes:
        url: An http(s) URL or a data URI.
        source: The source of its documents; None is the URL.
        metadata: Metadata of its documents.
    """

    url: str
    source: str | None
    metadata: Mapping[str, Any]


async def ingest_form(request: Request, library: Library, ingestion: Ingestion) -> Job:
    """Receive the files of a form, and have them ingested.

    A form has files under any name, and perhaps a field `source` for each file, in their order, and a field `metadata`
    with a JSON object for all of them. A file without a source has its name as source.

    Args:
        request: The request.
        library: Its limits are applied.
        ingestion: Ingests the files; they are written into its media folder as they arrive.

    Returns:
        The job.

    Raises:
        RequestError: The form is malformed, too large, too slow, or lacks files, or the disk is full. Nothing is kept
            then.
    """
    settings, folder = library.settings, ingestion.folder
    folder.require_space(settings.max_upload_bytes)
    chunks = limited_chunks(request, settings.max_upload_bytes, settings.timeout_s)
    with ExitStack() as stack:
        stack.enter_context(full_disk_errors())
        form = _Form(stack, folder)
        await form.read(read_parts(chunks, request.headers.get("content-type", "")))
        sources = form.sources or [name for name, _ in form.files]
        if len(sources) != len(form.files) or not sources:
            raise RequestError(
                400,
                f"the form has {len(form.files)} files and {len(form.sources)} fields `source`; send a file or more, "
                "and as many sources or none",
            )
        for source in sources:
            check_source(source)
        metadata = _check_metadata(form.metadata)
        pairs = list(zip(sources, form.files, strict=True))
        return await _submit(partial(_keep, pairs, metadata, folder), sources, ingestion)


async def ingest_references(references: Sequence[Reference], library: Library, ingestion: Ingestion) -> Job:
    """Check references, and have them ingested.

    Args:
        references: What a client has sent.
        library: Its media policy is applied.
        ingestion: Ingests them. Those that are data URIs are written into its media folder, others are fetched later.

    Returns:
        The job.

    Raises:
        RequestError: There are too many (status 422), a reference is no http(s) URL and no data URI, URLs are not
            fetched, too many uploads are being accepted (status 429), or the disk is full (507).
    """
    max_items = library.settings.max_items
    if len(references) > max_items:
        raise RequestError(
            422,
            f"documents has {len(references)} items, and at most {max_items} are accepted; send several requests",
            param="documents",
            code="too_many_items",
        )
    for reference in references:
        if _is_data_uri(reference.url):
            if reference.source is None:
                raise RequestError(400, "a document in a data URI needs a source, by which it can be deleted")
        elif not reference.url[:8].lower().startswith(("http://", "https://")):
            raise RequestError(400, "the server opens no files: send an http(s) URL, a data URI, or upload the file")
        elif not library.policy.urls:
            raise RequestError(400, "this server fetches no URLs; send the content, or start it with --media-urls")
        check_source(reference.url if reference.source is None else reference.source)
        _check_metadata(reference.metadata)
    if size := sum(len(reference.url) for reference in references if _is_data_uri(reference.url)):
        ingestion.folder.require_space(size)
    return await library.finish(_accept(references, library, ingestion))


async def _accept(references: Sequence[Reference], library: Library, ingestion: Ingestion) -> Job:
    with library.uploads.lease() as lease, full_disk_errors():  # of its own: that of the request ends with the client
        lease.add(1)
        sources = [reference.source for reference in references if reference.source is not None]
        return await _submit(partial(_write_data_uris, references, ingestion.folder), sources, ingestion)


async def _submit(write_files: Callable[[], Sequence[NewFile]], sources: Sequence[str], ingestion: Ingestion) -> Job:
    """Submit files. If they cannot be written, those that were are deleted: no job knows of them."""
    try:
        return await ingestion.submit(write_files)
    except OSError:
        for source in dict.fromkeys(sources):
            with suppress(StoreError):  # which knows what the source shows
                await ingestion.prune(source)
        raise


def check_source(source: str) -> None:
    """Check the name of a source.

    Args:
        source: What a client has sent.

    Raises:
        RequestError: It is empty, too long, or has control characters or lone surrogates.
    """
    try:
        check_text(source, "the source")
    except InputError as error:
        raise RequestError(400, str(error)) from error
    if not source.strip() or len(source) > _MAX_SOURCE_CHARACTERS or _CONTROL_CHARACTER.search(source):
        raise RequestError(
            400,
            f"a source has 1 to {_MAX_SOURCE_CHARACTERS} characters, and no control characters",
            param="source",
        )


def _check_metadata(metadata: Any) -> dict[str, Any]:
    """Check the metadata of documents before a job is accepted that would fail.

    Args:
        metadata: What a client has sent.

    Returns:
        The metadata.

    Raises:
        RequestError: They are no object, or cannot be stored: status 400.
    """
    if not isinstance(metadata, Mapping):
        raise RequestError(400, "metadata are a JSON object", param="metadata")
    try:
        check_metadata(metadata)
    except InputError as error:
        raise RequestError(400, f"a document cannot be stored: {error}", param="metadata") from error
    return dict(metadata)


def _keep(
    pairs: Sequence[tuple[str, tuple[str, IncomingFile]]], metadata: Mapping[str, Any], folder: MediaFolder
) -> list[NewFile]:
    files = []
    for source, (name, incoming) in pairs:
        path = folder.keep(incoming, source, suffix_for(name, incoming.head))
        files.append(NewFile(source, path.relative_to(folder.path).as_posix(), metadata=metadata))
    return files


def _write_data_uris(references: Sequence[Reference], folder: MediaFolder) -> list[NewFile]:
    contents = [_decode(reference.url) for reference in references]
    files = []
    for reference, content in zip(references, contents, strict=True):
        if content is None or reference.source is None:
            files.append(NewFile(reference.source or reference.url, url=reference.url, metadata=reference.metadata))
            continue
        with folder.receive() as incoming:
            incoming.write(content)
            files += _keep([(reference.source, (reference.source, incoming))], reference.metadata, folder)
    return files


def _decode(url: str) -> bytes | None:
    """Return the content of a data URI; None for other URLs."""
    if not _is_data_uri(url):
        return None
    try:
        return decode_data_uri(url)
    except InputError as error:
        raise RequestError(400, str(error)) from error


def _is_data_uri(url: str) -> bool:
    return url[:5].lower() == "data:"


class _Form:
    """Reads a form whose files go into the media folder.

    Args:
        stack: Deletes the files at its end, unless they were moved.
        folder: The media folder.

    Attributes:
        files: Name and content of each file.
        sources: The fields `source`.
        metadata: The field `metadata`.
    """

    def __init__(self, stack: ExitStack, folder: MediaFolder) -> None:
        self.files: list[tuple[str, IncomingFile]] = []
        self.sources: list[str] = []
        self.metadata: Any = {}
        self._stack = stack
        self._folder = folder
        self._part: Part | None = None
        self._buffer = bytearray()

    async def read(self, events: AsyncIterator[Part | bytes]) -> None:
        """Read the form.

        Args:
            events: Its parts.
        """
        async for event in events:
            if isinstance(event, bytes):
                await self._add(event)
                continue
            await self._end_part()
            self._part = event
            if event.filename is not None:
                incoming = self._stack.enter_context(await asyncio.to_thread(self._folder.receive))
                self.files.append((event.filename, incoming))
        await self._end_part()

    async def _add(self, data: bytes) -> None:
        self._buffer += data
        is_file = self._part is not None and self._part.filename is not None
        if is_file and len(self._buffer) >= _BUFFER_BYTES:
            await self._flush()
        elif not is_file and len(self._buffer) > _MAX_FIELD_BYTES:
            raise RequestError(413, "a field of the form that is no file has more than 64 KiB", code="body_too_large")

    async def _flush(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        await asyncio.to_thread(self.files[-1][1].write, data)

    async def _end_part(self) -> None:
        if self._part is None:
            return
        if self._part.filename is not None:
            await self._flush()
            await asyncio.to_thread(self.files[-1][1].complete)  # a process may have some 1000 files open at once
            return
        content, self._buffer = bytes(self._buffer), bytearray()
        try:
            if self._part.name == "source":
                self.sources.append(content.decode())
            elif self._part.name == "metadata":
                self.metadata = json.loads(content)
            else:
                raise RequestError(400, f"the form's field {self._part.name!r} has no use; /docs lists those that have")
        except (ValueError, RecursionError) as error:
            raise RequestError(400, f"the form's field {self._part.name} is malformed: {error}") from error

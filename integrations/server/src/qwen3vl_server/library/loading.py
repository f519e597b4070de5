"""Loads the files of a job as documents, with the sources and metadata that clients have given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from qwen3vl.documents import LoadFailure
from qwen3vl.errors import InputError
from qwen3vl.ingestion import LoaderItem
from qwen3vl.loaders import Loader, Skipped
from qwen3vl.media.fetch import fetch
from qwen3vl.media.policy import MediaPolicy
from qwen3vl_server.library.jobs import NewFile
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.media_types import suffix_for


def load_files(files: Sequence[NewFile], folder: MediaFolder, policy: MediaPolicy) -> Iterator[LoaderItem]:
    """Load files; this reads, decodes and fetches, and belongs into a thread.

    Args:
        files: The files.
        folder: Where they are, and where fetched ones are written.
        policy: Limits on files and addresses.

    Yields:
        Documents, and failures where they occur.
    """
    loader = Loader(policy=policy)
    for file in files:
        try:
            path = folder.path / file.path if file.path else _fetch(file, folder, policy)
        except (InputError, OSError) as error:
            yield LoadFailure(file.source, str(error))
            continue
        for item in loader.load_file(path):
            yield _relabel(item, file)


def _fetch(file: NewFile, folder: MediaFolder, policy: MediaPolicy) -> Path:
    data = fetch(file.url, policy)
    with folder.receive() as incoming:
        incoming.write(data)
        return folder.keep(incoming, file.source, suffix_for(urlsplit(file.url).path, incoming.head))


def _relabel(item: LoaderItem, file: NewFile) -> LoaderItem:
    if isinstance(item, Skipped):
        return LoadFailure(file.source, "it is no image, PDF, video or text of a type that is loaded")
    if isinstance(item, LoadFailure):
        return replace(item, source=file.source)
    return replace(item, source=file.source, metadata={**file.metadata, **item.metadata})

"""Ingestions of documents that clients send: their status, and what becomes of their files."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest
from qwen3vl_server.library import ingestion as ingestion_module
from qwen3vl_server.library.ingestion import Ingestion
from qwen3vl_server.library.jobs import Job, NewFile
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.points import SourceCounts

from qwen3vl import Embedder, open_store


def write_text(folder: MediaFolder, number: int) -> list[NewFile]:
    with folder.receive() as incoming:
        incoming.write(f"text {number}".encode())
        path = folder.keep(incoming, "notes", ".txt")
    return [NewFile("notes", path.relative_to(folder.path).as_posix())]


async def test_latest_finished_ingestions_are_listed(
    tiny_embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion_module, "_MAX_FINISHED_JOBS", 4)
    store, folder = open_store(":memory:"), MediaFolder(tmp_path)
    store.create(tiny_embedder.recipe)
    ingestion = Ingestion(tiny_embedder, store, folder, SourceCounts(store))
    ingestion.start()
    submitted: list[Job] = []
    for number in range(7):
        job = await ingestion.submit(partial(write_text, folder, number))
        submitted.insert(0, job)
        assert ingestion.jobs == submitted[:5]  # the new one, and four that have finished
        while job.status in ("waiting", "running"):
            await asyncio.sleep(0.01)
        assert (job.status, job.error) == ("done", None)
    await ingestion.close()
    store.close()

"""The folder of uploads and the records of ingestions in it, after power cuts and after processes that were killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from qwen3vl_server.library.jobs import Job, JobRecords, NewFile
from qwen3vl_server.library.media_folder import MediaFolder

from tests.support.power_cuts import SyncedNames


@pytest.mark.skipif(os.name != "posix", reason="folders can be synced on POSIX only")
def test_accepted_files_and_their_job_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = SyncedNames(monkeypatch)
    folder = MediaFolder(tmp_path / "new" / "library.media")
    with folder.receive() as incoming:
        incoming.write(b"content")
        path = folder.keep(incoming, "photo.png", ".png")
    records = JobRecords(folder.jobs)
    records.add(Job((NewFile("photo.png", path.relative_to(folder.path).as_posix()),), "1"))
    assert synced.survives(path, tmp_path)
    assert synced.survives(folder.jobs / "1.json", tmp_path)
    (job,) = records.load()
    assert (job.id, job.sources) == ("1", {"photo.png"})
    assert (folder.path / job.files[0].path).read_bytes() == b"content"

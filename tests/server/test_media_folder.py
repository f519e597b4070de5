"""The folder of uploads and the records of ingestions in it, after power cuts and after processes that were killed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from qwen3vl_server.library.jobs import Job, JobRecords, NewFile
from qwen3vl_server.library.media_folder import MediaFolder

from qwen3vl import durable
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


def test_files_that_are_shown_are_kept_after_the_folder_was_moved(tmp_path: Path) -> None:
    former = tmp_path / "library.media"
    folder, kept = MediaFolder(former), []
    for content in (b"shown", b"not shown"):
        with folder.receive() as incoming:
            incoming.write(content)
            kept.append(folder.keep(incoming, "a.pdf", ".pdf"))
    former.rename(tmp_path / "moved")
    moved = MediaFolder(tmp_path / "moved")
    moved.prune("a.pdf", [f"{kept[0]}#page=2", ""])
    (file,) = moved.folder_of("a.pdf").iterdir()
    assert file.read_bytes() == b"shown"
    moved.prune("a.pdf", ["https://example.org/a.pdf", "a\0b", "#", "/"])
    assert not moved.folder_of("a.pdf").exists()


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_files_that_are_shown_through_a_link_are_kept(tmp_path: Path) -> None:
    former = tmp_path / "library.media"
    with MediaFolder(former).receive() as incoming:
        incoming.write(b"shown")
        kept = MediaFolder(former).keep(incoming, "a.pdf", ".pdf")
    former.rename(tmp_path / "moved")
    former.symlink_to(tmp_path / "moved")
    folder = MediaFolder(former)
    folder.prune("a.pdf", [f"{kept}#page=2"])
    assert kept.read_bytes() == b"shown"


def test_records_that_were_not_written_completely_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Path) -> None:
        raise KeyboardInterrupt

    records = JobRecords(tmp_path)
    records.add(Job((NewFile("accepted"),), "1"))
    monkeypatch.setattr(durable, "rename", kill)
    with pytest.raises(KeyboardInterrupt):
        records.add(Job((NewFile("not accepted"),), "2"))
    assert len(list(tmp_path.iterdir())) == 2
    assert [job.id for job in records.load()] == ["1"]
    assert [path.name for path in tmp_path.iterdir()] == ["1.json"]

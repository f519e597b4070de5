"""The folder of uploads and the records of ingestions in it, after power cuts and after processes that were killed."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qwen3vl_server import SERVER_POLICY, create_app
from qwen3vl_server.library import media_owner
from qwen3vl_server.library.jobs import Job, JobRecords, NewFile
from qwen3vl_server.library.media_folder import MediaFolder
from qwen3vl_server.library.media_owner import MediaOwner

from qwen3vl import StoreError, durable, open_store
from qwen3vl.stores.folders import lock_folder
from tests.support.library_server import open_embedder
from tests.support.media_folders import open_media_folder
from tests.support.model_server import ModelServer
from tests.support.power_cuts import SyncedNames
from tests.support.read_only import run_with_read_only_folder


@pytest.mark.skipif(os.name != "posix", reason="folders can be synced on POSIX only")
def test_accepted_files_and_their_job_survive_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = SyncedNames(monkeypatch)
    folder = open_media_folder(tmp_path / "new" / "library.media")
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
    folder, kept = open_media_folder(former), []
    for content in (b"shown", b"not shown"):
        with folder.receive() as incoming:
            incoming.write(content)
            kept.append(folder.keep(incoming, "a.pdf", ".pdf"))
    folder.close()
    former.rename(tmp_path / "moved")
    moved = open_media_folder(tmp_path / "moved")
    moved.prune("a.pdf", [f"{kept[0]}#page=2", ""])
    (file,) = moved.folder_of("a.pdf").iterdir()
    assert file.read_bytes() == b"shown"
    moved.prune("a.pdf", ["https://example.org/a.pdf", "a\0b", "#", "/"])
    assert not moved.folder_of("a.pdf").exists()


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege on Windows")
def test_files_that_are_shown_through_a_link_are_kept(tmp_path: Path) -> None:
    former = tmp_path / "library.media"
    folder = open_media_folder(former)
    with folder.receive() as incoming:
        incoming.write(b"shown")
        kept = folder.keep(incoming, "a.pdf", ".pdf")
    folder.close()
    former.rename(tmp_path / "moved")
    former.symlink_to(tmp_path / "moved")
    folder = open_media_folder(former)
    folder.prune("a.pdf", [f"{kept}#page=2"])
    assert kept.read_bytes() == b"shown"


HOLD_THE_FOLDER = """
import sys
from pathlib import Path
from tests.support.media_folders import open_media_folder

folder = open_media_folder(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_one_server_at_a_time_uses_the_uploads_of_a_collection(tmp_path: Path) -> None:
    media = tmp_path / "library.media"
    command = [sys.executable, "-c", HOLD_THE_FOLDER, str(media)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"open\n"
        with pytest.raises(StoreError, match=rf"media is used by another server \(process {process.pid}\): .* --media"):
            open_media_folder(media)
        open_media_folder(media, "another").close()
        process.kill()
    open_media_folder(media).close()


READ_THE_FOLDER = """
import sys
from pathlib import Path
from tests.support.media_folders import open_media_folder

folder = Path(sys.argv[1])
first, second = (open_media_folder(folder, "photos") for _ in range(2))
open_media_folder(folder, "another")  # which has no folder of its own yet
print((first.folder_of("a.png") / "a.png").read_text())
"""


def test_folder_that_can_only_be_read(tmp_path: Path) -> None:
    folder = open_media_folder(tmp_path / "library.media", "photos")
    folder.folder_of("a.png").mkdir(parents=True)
    (folder.folder_of("a.png") / "a.png").write_text("shown")
    folder.close()
    assert run_with_read_only_folder(tmp_path / "library.media", READ_THE_FOLDER) == "shown"


def test_folder_of_an_application_is_free_when_that_has_ended(tmp_path: Path) -> None:
    stores = [open_store(":memory:") for _ in range(2)]
    with open_embedder(replace(SERVER_POLICY, folders=(tmp_path,))) as embedder:
        app = create_app(embedder=embedder, store=stores[0], media=tmp_path)
        with ModelServer(app), pytest.raises(StoreError, match="is used by another server"):
            create_app(embedder=embedder, store=stores[1], media=tmp_path)
        create_app(embedder=embedder, store=stores[1], media=tmp_path)


@pytest.mark.parametrize("still_runs", [True, False])
def test_two_collections_that_are_served_from_a_new_folder_at_once(
    still_runs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lock_late(*arguments: Any) -> Any:
        monkeypatch.undo()
        first.append(open_media_folder(tmp_path, "first"))
        if not still_runs:
            first[0].close()
        return lock_folder(*arguments)

    first: list[MediaFolder] = []
    monkeypatch.setattr(media_owner, "lock_folder", lock_late)
    second = open_media_folder(tmp_path, "second")
    assert first[0].jobs == tmp_path / "jobs"
    assert second.jobs.parent.parent == tmp_path / "collections"


def test_collections_have_folders_of_their_own(tmp_path: Path) -> None:
    owners = [("photos", "../library"), ("Photos", "../library"), ("..", "http://localhost:6333"), ("notes/1", "")]
    for _ in range(2):  # as a second process finds them
        folders = [open_media_folder(tmp_path, *owner) for owner in owners]
        assert folders[0].jobs == folders[0].path / "jobs"
        assert len({folder.jobs for folder in folders}) == len({folder.folder_of("a.png") for folder in folders}) == 4
        for folder in folders:
            assert folder.path == tmp_path.resolve()
            assert folder.folder_of("a.png").is_relative_to(folder.path)
            folder.close()


def test_uploads_of_another_store_with_a_collection_of_the_same_name_are_left_alone(tmp_path: Path) -> None:
    open_media_folder(tmp_path).close()  # by create_app, which does not know where the store is
    open_media_folder(tmp_path, location="../library").close()
    open_media_folder(tmp_path).close()
    with pytest.raises(StoreError, match=r"uploads of the collection 'qwen3vl' of Qdrant in \.\./library, .*--media"):
        open_media_folder(tmp_path, location="../other")
    with pytest.raises(StoreError, match="not of the collection 'qwen3vl' of Chroma: name another folder"):
        MediaFolder(tmp_path, MediaOwner("qwen3vl", "Chroma"))
    (tmp_path / "owner.json").write_bytes(b"{")
    with pytest.raises(StoreError, match=r"owner\.json is damaged .* delete the file"):
        open_media_folder(tmp_path)
    (tmp_path / "owner.json").unlink()
    open_media_folder(tmp_path, location="../other").close()


def test_jobs_of_an_earlier_version_are_taken_over_by_the_first_collection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its records do not say which collection they are for: it is the one that is served by the same command."""
    (tmp_path / "jobs").mkdir()
    JobRecords(tmp_path / "jobs").add(Job((NewFile("a.png", "files/a.png"),), "1"))
    photos = open_media_folder(tmp_path, "photos")
    assert [job.id for job in JobRecords(photos.jobs).load()] == ["1"]
    assert "has 1 uploads that an earlier version accepted" in caplog.text
    assert "they are ingested into the collection 'photos'" in caplog.text
    caplog.clear()
    photos.close()
    open_media_folder(tmp_path, "photos").close()
    assert list(JobRecords(open_media_folder(tmp_path).jobs).load()) == []
    assert caplog.text == ""


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

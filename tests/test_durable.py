"""Files, folders and renames that a power cut does not undo."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qwen3vl.durable import make_folder, rename, sync_folder, write_file
from tests.support.power_cuts import SyncedNames

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders can be synced on POSIX only")


def test_names_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = SyncedNames(monkeypatch)
    folder = tmp_path / "a" / "b"
    make_folder(folder)
    make_folder(folder)
    write_file(folder / "file", b"1")
    write_file(folder / "file", (part for part in (b"2", b"", b"3")))
    assert (folder / "file").read_bytes() == b"23"
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert synced.survives(folder / "file", tmp_path)
    rename(folder, tmp_path / "c")
    assert synced.survives(tmp_path / "c" / "file", tmp_path)
    (tmp_path / "c" / "file").rename(tmp_path / "c" / "other")
    assert not synced.survives(tmp_path / "c" / "other", tmp_path)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_file_systems_that_cannot_sync_folders() -> None:
    descriptor = os.open("/proc", os.O_RDONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        os.fsync(descriptor)
    os.close(descriptor)
    sync_folder(Path("/proc"))


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync_folder(tmp_path / "missing")

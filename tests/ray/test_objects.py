"""Files of object stores are found and opened under their URLs, called in this process."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from qwen3vl_ray.downloads import Downloads
from qwen3vl_ray.manifests import ENTRY_SCHEMA
from qwen3vl_ray.objects import find_objects
from qwen3vl_ray.reading import load_entries

from qwen3vl import Loader, MediaPolicy
from qwen3vl.documents import LoadFailure
from tests.support.s3_server import serve_objects

ALL = MediaPolicy(private_hosts=True)
NAMES = ["a b.txt", "a%20b.txt", "a#1.txt", "é.txt", "[x].txt", "what?.txt", "100%.txt", "a.txt", "a", "deep/er/d.txt"]
uses_arrow = pytest.mark.skipif(find_spec("s3fs") is not None, reason="fsspec opens s3:// with s3fs here")


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        with serve_objects({f"bucket/scans/{name}": f"text of {name}".encode() for name in NAMES}) as address:
            yield address


@uses_arrow
@pytest.mark.parametrize("root", ["s3://bucket/scans", "s3://bucket", "s3://key@bucket/scans/"])
def test_objects_are_opened_under_the_urls_that_are_found(s3: str, root: str) -> None:
    query = f"?endpoint_override={s3}&scheme=http&region=x"
    folder = root.rstrip("/") if "scans" in root else f"{root}/scans"
    found = list(find_objects(f"{root}{query}"))
    assert sorted(map(str, found)) == sorted(f"{folder}/{name}{query}" for name in NAMES)
    with Downloads(ALL) as downloads:
        texts = {str(url): downloads.acquire(str(url)).read_text() for url in found}
    assert texts == {f"{folder}/{name}{query}": f"text of {name}" for name in NAMES}


@uses_arrow
def test_a_pattern_keeps_its_query_and_plain_urls_take_the_server_from_the_environment(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = f"?endpoint_override={s3}&scheme=http&region=x"
    found = list(find_objects(f"s3://bucket/scans/a*.txt{query}"))
    assert found == [f"s3://bucket/scans/{name}{query}" for name in ("a b.txt", "a#1.txt", "a%20b.txt", "a.txt")]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{s3}")
    monkeypatch.setenv("AWS_REGION", "x")
    with Downloads(MediaPolicy()) as downloads:
        for name in ("a#1.txt", "what?.txt"):
            assert downloads.acquire(f"s3://bucket/scans/{name}").read_text() == f"text of {name}"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("zip://::{}/all.zip", ["zip://a.txt::{}/all.zip", "zip://in/b.txt::{}/all.zip"]),
        ("zip://*.txt::{}/all.zip", ["zip://a.txt::{}/all.zip"]),
        ("zip://in::file://{}/all.zip", ["zip://in/b.txt::file://{}/all.zip"]),
        ("memory://found/in", ["memory://found/in/b.txt"]),
        ("memory:///found/*.txt", ["memory:///found/a.txt"]),
    ],
)
def test_urls_keep_their_chain(url: str, found: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.txt", "first")
        archive.writestr("in/b.txt", "second")
    MemoryFileSystem().pipe({"/found/a.txt": b"first", "/found/in/b.txt": b"second"})
    urls = [item for item in find_objects(url.format(tmp_path)) if isinstance(item, str)]
    assert urls == [each.format(tmp_path) for each in found]
    with Downloads(ALL) as downloads:
        texts = [downloads.acquire(each).read_text() for each in urls]
    assert texts == ["second" if "b.txt" in each else "first" for each in urls]


class OnHost(MemoryFileSystem):  # type: ignore[misc]
    """Names without the host and user, which are arguments: as FTP, SFTP, SMB, WebHDFS and GitHub have them."""

    protocol = ("onhost", "gitlike")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        location = path.partition("://")[2] if "://" in path else f"host/{path.lstrip('/')}"
        return "/" + location.partition("/")[2].rstrip("/")


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("onhost://user@host:22/found", ["onhost://user@host:22/found/a.txt", "onhost://user@host:22/found/in/b.txt"]),
        ("onhost://user@host/found/*.txt", ["onhost://user@host/found/a.txt"]),
        ("onhost://host/found/in/b.txt", ["onhost://host/found/in/b.txt"]),
    ],
)
def test_urls_keep_their_host_and_user(url: str, found: list[str]) -> None:
    fsspec.register_implementation("onhost", OnHost, clobber=True)
    OnHost().pipe({"/found/a.txt": b"first", "/found/in/b.txt": b"second"})
    assert list(find_objects(url)) == found


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("onhost://user:secret@host/found", "has a password, which would be stored with each document"),
        ("simplecache://::memory://found", "list the files in a manifest"),
    ],
)
def test_urls_that_cannot_be_kept_are_failures_that_say_so(url: str, reason: str) -> None:
    fsspec.register_implementation("onhost", OnHost, clobber=True)
    OnHost().pipe({"/found/a.txt": b"first"})
    (failure,) = find_objects(url)
    assert isinstance(failure, LoadFailure)
    assert reason in failure.reason
    assert "secret" not in failure.reason


def test_files_of_other_types_are_not_downloaded() -> None:
    files = {
        "/types/backup.tar": b"x" * 300,
        "/types/none": b"x",
        "/types/a.TXT": b"a text",
        "/types/b.txt": b"y" * 300,
    }
    MemoryFileSystem().pipe(files)
    paths = [{"path": f"memory:/{name}"} for name in files]
    loader = Loader(policy=MediaPolicy(private_hosts=True, max_bytes=100))
    loaded = pa.concat_tables(load_entries(pa.Table.from_pylist(paths, ENTRY_SCHEMA), loader, keep_skipped=True))
    rows = [(row["source"].rpartition("/")[2], row["kind"], row["text"]) for row in loaded.to_pylist()]
    assert rows == [
        ("backup.tar", "skipped", ".tar"),
        ("none", "skipped", "no suffix"),
        ("a.TXT", "text", "a text"),
        ("b.txt", None, None),
    ]


@pytest.mark.parametrize(
    ("path", "fix"), [("https://example.org/a.png", "its image or video"), ("file:///a.png", "leave out file://")]
)
def test_other_urls_as_paths_are_failures_that_say_what_to_write(path: str, fix: str) -> None:
    entries = pa.Table.from_pylist([{"path": path}], ENTRY_SCHEMA)
    (row,) = pa.concat_tables(load_entries(entries, Loader(), keep_skipped=True)).to_pylist()
    assert row["source"] == path
    assert fix in row["error"]


class Listed(LocalFileSystem):  # type: ignore[misc]
    """Keeps its listings, as S3's and Google's of fsspec do."""

    protocol = "listed"

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        path = self._strip_protocol(path)
        if path not in self.dircache:
            self.dircache[path] = super().ls(path, detail=True, **kwargs)
        return self.dircache[path] if detail else [entry["name"] for entry in self.dircache[path]]

    def find(self, path: str, **kwargs: Any) -> Any:
        return fsspec.AbstractFileSystem.find(self, path, **kwargs)

    def invalidate_cache(self, path: str | None = None) -> None:
        self.dircache.clear()
        super().invalidate_cache(path)


def test_files_are_found_that_came_after_the_last_listing(tmp_path: Path) -> None:
    fsspec.register_implementation("listed", Listed, clobber=True)
    for number in range(2):
        (tmp_path / f"{number}.txt").write_text("a text")
        assert len(list(find_objects(f"listed://{tmp_path}"))) == number + 1

"""`qwen3vl index --ray`, and the code of docs/ray.md."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen3vl import open_store
from qwen3vl.cli import main
from tests.support import qdrant_rest
from tests.support.drawn_scenes import draw_scenes
from tests.test_docs import ROOT, blocks

pytestmark = pytest.mark.usefixtures("local_ray")


@pytest.fixture
def location() -> Iterator[str]:
    with qdrant_rest.serve() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def _entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Python find the entry points of the integration, as if the distribution were installed."""
    project = tomllib.loads((ROOT / "integrations/ray/pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = tmp_path / "site" / "qwen3vl_ray-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qwen3vl-ray\nVersion: 0\n")
    groups = project["entry-points"].items()
    (info / "entry_points.txt").write_text(
        "".join(
            f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in names.items()) for group, names in groups
        )
    )
    monkeypatch.syspath_prepend(info.parent)


@pytest.mark.usefixtures("_entry_points")
def test_index_on_a_cluster(location: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    draw_scenes(photos, 3)
    (photos / "broken.png").write_bytes(b"nothing")
    command = ["index", str(photos), "--store", location, "--model", "tiny", "--ray", "local", "--json"]
    assert main(command) == 1
    first = json.loads(capsys.readouterr().out)
    assert (first["added"], first["stored"]) == (3, 3)
    assert [failure["source"] for failure in first["failed"]] == [str(photos / "broken.png")]
    (photos / "broken.png").unlink()
    next(photos.glob("0*.png")).unlink()
    assert main([argument for argument in command if argument not in ("--model", "tiny")]) == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["added"], second["unchanged"], second["deleted"], second["stored"]) == (0, 2, 1, 2)


@pytest.mark.usefixtures("_entry_points")
def test_index_removes_what_is_gone_from_an_object_store(
    location: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = tmp_path / "bucket"
    for name in ("scans/a.txt", "scans/b.txt", "other/c.txt"):
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_text(name)
    command = ["--store", location, "--model", "tiny", "--ray", "local", "--json"]
    assert main(["index", f"local://{bucket}", *command]) == 0
    assert json.loads(capsys.readouterr().out)["stored"] == 3
    for name in ("scans/a.txt", "other/c.txt"):
        (bucket / name).unlink()
    assert main(["index", f"local://{bucket}/scans", *command]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["unchanged"], summary["deleted"], summary["stored"]) == (1, 1, 2)
    assert [point.source for point in open_store(location).scan() if "other" in point.source]


@pytest.mark.usefixtures("_entry_points")
def test_index_on_a_cluster_needs_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_scenes(tmp_path / "photos", 1)
    store = str(tmp_path / "library")
    assert main(["index", str(tmp_path / "photos"), "--store", store, "--model", "tiny", "--ray", "local"]) == 2
    assert "start Qdrant or Chroma as a server" in " ".join(capsys.readouterr().out.split())


def test_the_code_of_the_page_runs(
    location: str, ray_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tiny models in place of the real ones, and a server of this test in place of that on port 6333."""
    monkeypatch.chdir(ray_folder)
    draw_scenes(ray_folder / "photos", 12)
    page = blocks("docs/ray.md", "python")
    assert len(page[0].splitlines()) <= 10
    namespace: dict[str, Any] = {}
    for block in page:
        code = re.sub(r"Qwen/Qwen3-VL-\w+-2B", "tiny", block).replace("http://localhost:6333", location)
        exec(compile(code, "docs/ray.md", "exec"), namespace)
    output = capsys.readouterr().out
    assert "12 []" in output
    assert len(namespace["judged"].take(1)[0]["scores"]) == 2
    assert namespace["judged"].take(1)[0]["error"] is None
    assert "12 0 []" in output
    assert "added=12" in output
    assert open_store(location, "again").count() == 12

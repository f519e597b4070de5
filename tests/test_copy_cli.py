"""`qwen3vl copy`: from a folder to any location, in one command, and after being killed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qwen3vl_qdrant import Layout, QdrantEdgeStore, QdrantStore

from qwen3vl import Store, StoreError, ingest, open_store
from qwen3vl.cli import main
from tests.support import qdrant_rest
from tests.support.catalogue import numbers, parts
from tests.support.fake_embedder import FakeEmbedder, fake_recipe, passages, query_vector
from tests.support.read_only import run_with_read_only_folder
from tests.test_edge_processes import _wait_until_free
from tests.test_embedded_stores import DATABASES, assert_intact, location, make_store


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main(["copy", *arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("database", DATABASES)
def test_folder_of_any_kind_is_copied_to_a_folder(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = location(database, make_store(database, tmp_path / "source"))
    code, summary = run_json(capsys, source, str(tmp_path / "new"))
    # Engines tidy up their files when they open a folder, but no point is changed.
    assert_intact(open_store(source))
    assert code == 0
    assert {name: summary[name] for name in ("copied", "present", "stored")} == {
        "copied": 30,
        "present": 0,
        "stored": 30,
    }
    new = open_store(str(tmp_path / "new"))
    assert isinstance(new, QdrantEdgeStore)
    assert_intact(new)
    assert main(["copy", source, str(tmp_path / "new"), "--to-collection", "second", "--short", "8"]) == 0
    assert re.search(r"copied\W+30", capsys.readouterr().out)
    second = open_store(str(tmp_path / "new"), "second")
    assert second.recipe() == fake_recipe()
    assert isinstance(second, QdrantStore)
    assert second.layout == Layout(short=8)
    second.close()
    code, summary = run_json(capsys, str(tmp_path / "new"), f"chroma:{tmp_path / 'chroma'}", "--collection", "second")
    assert (code, summary["copied"]) == (0, 30)


def test_folder_is_copied_to_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_store("qdrant", tmp_path / "source")
    with qdrant_rest.serve() as port:
        for expected in ((30, 0), (0, 30)):
            code, summary = run_json(capsys, str(folder), f"http://127.0.0.1:{port}")
            assert (code, summary["copied"], summary["present"]) == (0, *expected), summary
        code, summary = run_json(capsys, f"http://127.0.0.1:{port}", str(tmp_path / "back"), "--quantization", "scalar")
        assert (code, summary["copied"]) == (0, 30), summary
    back = open_store(str(tmp_path / "back"))
    assert isinstance(back, QdrantStore)
    assert back.recipe() == fake_recipe()
    assert back.layout == Layout(quantization="scalar")
    # Without options the layout is kept; with `none` it is not.
    back.close()
    for options, layout in (((), Layout(quantization="scalar")), (("--quantization", "none"), Layout())):
        name = f"to{len(options)}"
        assert run_json(capsys, str(tmp_path / "back"), str(tmp_path / name), *options)[0] == 0
        copied = QdrantEdgeStore(tmp_path / name)
        copied.recipe()
        assert copied.layout == layout
        copied.close()


@pytest.mark.parametrize("target", ["new", "source"], ids=["another folder", "the same folder"])
def test_copy_into_a_hybrid_collection_finds_words(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    documents = parts()
    dense = open_store(str(tmp_path / "source"))
    ingest(documents, FakeEmbedder(), dense)
    query = query_vector(documents[3])  # the vector means one part, the words another
    with pytest.raises(StoreError, match="--hybrid"):
        dense.search(query, 1, text="AX-7050", mode="text")
    dense.close()
    arguments = (str(tmp_path / "source"), str(tmp_path / target), "--to-collection", "words", "--hybrid")
    for expected in ((len(documents), 0), (0, len(documents))):
        code, summary = run_json(capsys, *arguments)
        assert (code, summary["copied"], summary["present"]) == (0, *expected), summary
    words = open_store(str(tmp_path / target), "words")
    assert isinstance(words, QdrantEdgeStore)
    assert numbers(words.search(query, 1, text="AX-7050", mode="text")) == [50]
    assert numbers(words.search(query, 1, text="AX-7050", mode="dense")) == [3]
    assert {3, 50} <= {*numbers(words.search(query, 5, text="AX-7050"))}
    assert words.layout == Layout(hybrid=True)
    words.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["missing", "new"], "there is no store at missing: make one by"),
        (["source", "new", "--collection", "x"], "the store source has no collection 'x' yet"),
        (["source", "./source"], "source would be copied into itself: name another location, or give --to-collection"),
        (["source", "qdrant:x/../source"], "copied into itself"),
        (["source", "chroma:new", "--short", "8"], "Chroma stores full vectors only"),
        (["source", "new", "--short", "32"], "short is 32; it must be less than the vectors' 32 values"),
        (["source", "other"], "instruction is 'Another.' there"),
        (["source", "compact", "--short", "4"], "its layout's short is 8, and 4 is requested"),
    ],
)
def test_what_cannot_be_copied_is_refused(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    make_store("qdrant", tmp_path / "source")
    other = open_store("other")
    ingest(passages(3), FakeEmbedder(instruction="Another."), other)
    other.close()
    compact = open_store("compact", layout={"short": 8})
    compact.create(fake_recipe())
    compact.close()
    code, summary = run_json(capsys, *arguments)
    assert code == 2
    assert reason in summary["error"]
    assert not (tmp_path / "missing").exists()
    assert not (tmp_path / "new" / "collections").exists()
    assert_intact(open_store("source"))


READ_ONLY = """
import sys, tempfile
from qwen3vl.cli import main
assert main(["copy", "{database}:" + sys.argv[1], tempfile.mkdtemp() + "/new", "--json"]) == 0
"""


@pytest.mark.parametrize("database", DATABASES)
def test_folder_that_cannot_be_written_is_copied(database: str, tmp_path: Path) -> None:
    folder = make_store(database, tmp_path / "source")
    code = READ_ONLY.format(database=database.replace("local", "qdrant"))
    assert json.loads(run_with_read_only_folder(folder, code))["copied"] == 30


COPY = """
import sys
from qwen3vl_qdrant.edge import configs
configs.INDEXING_THRESHOLD_KB = 100
from qwen3vl import copy_store, open_store
from qwen3vl.stores import copying
copying._MAX_POINTS = 100

def show(report):
    print(report.copied, int(report.indexing_s > 0), report.checked, flush=True)

copy_store(open_store(sys.argv[1]), open_store(sys.argv[2]), progress=show)
"""


def make_large(folder: Path) -> list[str]:
    store = open_store(str(folder))
    ingest(passages(1500), FakeEmbedder(), store)
    ids = [point.id for point in store.scan()]
    store.close()
    return ids


def kill_copy(source: Path, destination: str, moment: tuple[int, int, int]) -> int:
    """Copy in a process that is killed when so much is copied, indexed or checked; return what was copied by then."""
    command = [sys.executable, "-c", COPY, str(source), destination]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            report = tuple(map(int, line.split()))
            if all(value >= wanted for value, wanted in zip(report, moment, strict=True)):
                process.kill()  # SIGKILL
                return report[0]
    raise AssertionError("it ended before")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("destination", "moments"),
    [
        ("{}", [(300, 0, 0), (0, 1, 0), (0, 0, 1000)]),
        ("chroma:{}", [(1, 0, 0), (1000, 0, 0), (0, 0, 1000)]),
    ],
)
def test_killed_copy_is_continued(
    destination: str, moments: list[tuple[int, int, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = make_large(tmp_path / "source")
    target = destination.format(tmp_path / "target")
    num_stored = 0
    for moment in moments:  # each one continues where the one before was killed
        num_copied = kill_copy(tmp_path / "source", target, moment)
        if destination == "{}":
            _wait_until_free(tmp_path / "target")
        store = open_store(target)
        assert store.count() >= num_stored + num_copied  # nothing acknowledged is lost
        num_stored = store.count()
        store.close()
    code, summary = run_json(capsys, str(tmp_path / "source"), target)
    assert (code, summary["copied"], summary["present"]) == (0, 1500 - num_stored, num_stored), summary
    assert_equal(open_store(str(tmp_path / "source")), open_store(target), ids)


def assert_equal(source: Store, copy: Store, ids: list[str]) -> None:
    assert sorted(point.id for point in copy.scan()) == sorted(ids)
    copied = copy.vectors(ids)
    for point_id, vector in source.vectors(ids).items():
        np.testing.assert_allclose(copied[point_id], vector, atol=1e-6)
    document = passages(1500)[1234]
    assert copy.search(query_vector(document), 1)[0].document == document
    source.close()
    copy.close()

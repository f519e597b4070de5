"""The commands, as a user types them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qwen3vl import Embedder
from qwen3vl.cli import main
from qwen3vl.demo.scenes import Scene
from qwen3vl.documents import Document
from qwen3vl.loaders import Loader
from qwen3vl.retriever import Retriever
from qwen3vl.stores import open_store
from tests.support.sample_library import MOVER, SLIDE, STAR


@pytest.fixture(scope="module")
def store(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("store")
    assert main(["index", str(mixed), "--store", str(place), "--model", "tiny"]) == 1
    return place


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_index_names_what_failed(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["index", str(mixed), "--store", str(tmp_path / "store"), "--model", "tiny"]
    assert main(arguments) == 1
    shown = re.sub(r"\s+", "", capsys.readouterr().out)
    assert "corrupt[x].png:" in shown
    assert "1.csv" in shown
    code, summary = told(capsys, *arguments)
    assert code == 1
    assert summary["added"] == 0
    assert summary["unchanged"] == summary["stored"] == 37
    assert [failure["source"] for failure in summary["failed"]] == [str(mixed / "corrupt [x].png")]
    assert summary["skipped"] == {".csv": 1}


@pytest.mark.parametrize(
    ("query", "kind", "name", "place"),
    [
        (STAR.caption(), "picture", "star.png", ""),
        (MOVER.caption(), "clip", "mover.mp4", "t=0,4"),
        (SLIDE.caption(), "page", "slides.pdf", "page=2"),
        ("a cyan square on the left", "text", "notes.md", "lines=5,7"),
    ],
)
def test_search_finds_each_kind(
    query: str, kind: str, name: str, place: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, hits = told(capsys, "search", query, "--store", str(store), "--kind", kind, "--limit", "3")
    assert code == 0
    assert (Path(hits[0]["source"]).name, hits[0]["locator"], hits[0]["kind"]) == (name, place, kind)


def test_search_by_picture_and_by_both(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Scene(STAR.things[:1], 2).draw(Random(8)).save(tmp_path / "half.png")
    STAR.draw(Random(9)).save(tmp_path / "whole.png")
    common = ("--store", str(store), "--kind", "picture")
    _, hits = told(capsys, "search", "--image", str(tmp_path / "whole.png"), *common)
    assert Path(hits[0]["source"]).name == "star.png"
    words = Scene(STAR.things[1:]).caption()
    _, hits = told(capsys, "search", words, "--image", str(tmp_path / "half.png"), *common)
    assert "star.png" in [Path(hit["source"]).name for hit in hits[:3]]


def test_rerank_and_page(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page" / "hits.html"
    arguments = [
        "search",
        "a red star <b>&",
        "--store",
        str(store),
        "--rerank",
        "--candidates",
        "12",
        "--html",
        str(page),
    ]
    code, hits = told(capsys, *arguments)
    assert code == 0
    assert len(hits) == 10
    scores = [hit["rerank_score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    written = page.read_text(encoding="utf-8")
    assert "a red star &lt;b&gt;&amp;" in written
    assert written.count("<figure") == 10
    assert "http" not in written.replace("<!doctype html>", "")
    assert main(arguments) == 0
    assert "rerank" in capsys.readouterr().out


def test_usage_errors(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--store", str(store)]) == 2
    assert "nothing to search by" in capsys.readouterr().out
    assert main(["search", "x", "--store", str(tmp_path / "none")]) == 2
    assert "there is no store at" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    code, error = told(capsys, "search", "x", "--store", str(store), "--collection", "other")
    assert code == 2
    assert "no collection 'other'" in error["error"]
    code, error = told(capsys, "index", str(tmp_path), "--store", str(store), "--model", "tiny", "--dimensions", "32")
    assert code == 2
    assert "dimensions is 128 there and 32 here" in error["error"]
    assert main(["search", "x", "--store", str(store), "--image", str(tmp_path / "no.png")]) == 2
    assert "does not exist" in capsys.readouterr().out


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = told(capsys, "doctor")
    assert code == 0
    states = {finding["what"]: finding["state"] for finding in findings}
    assert states["test run"] == states["torch"] == states["stores"] == "ok"
    assert main(["doctor"]) == 0


def test_importing_the_package_is_light() -> None:
    """Neither torch nor transformers is loaded before the first use."""
    code = "import sys, qwen3vl, qwen3vl.cli; qwen3vl.cli.build_parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert subprocess.run([sys.executable, "-m", "qwen3vl", "--help"], check=False, capture_output=True).returncode == 0


def test_transformers_is_not_needed() -> None:
    use = "from qwen3vl import Embedder, Reranker; Embedder('tiny').embed('a'); Reranker('tiny').score('a', ['b'])"
    code = f"import sys; {use}; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_everything_is_found_again(mixed: Path, store: Path, tiny_embedder: Embedder) -> None:
    """Each document, asked for by its own content, comes first."""
    loaded = [each for each in Loader().load([mixed]) if isinstance(each, Document)]
    opened = open_store(str(store))
    try:
        retriever = Retriever(tiny_embedder, opened)
        for document in loaded:
            if "corrupt" not in document.source:
                (hit,) = retriever.search(document.input, 1)
                assert (hit.document.name, round(hit.score, 4)) == (document.name, 1.0)
    finally:
        opened.close()

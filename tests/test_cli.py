"""The commands, called with the arguments that a user types."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from qwen3vl import Embedder
from qwen3vl.cli import main
from qwen3vl.cli.describe import describe_content
from qwen3vl.cli.page import QueryResult, write_page
from qwen3vl.demo.scenes import Scene
from qwen3vl.documents import Document
from qwen3vl.loaders import Loader
from qwen3vl.retriever import Retriever
from qwen3vl.stores import Hit, open_store
from tests.support.sample_library import MOVER, SLIDE, STAR

HEAVY_MODULES = ("torch", "transformers", "pandas", "qdrant_client", "chromadb", "av", "PIL", "jinja2")


@pytest.fixture(scope="module")
def store(library_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the sample library, of which one image is corrupt."""
    folder = tmp_path_factory.mktemp("store")
    assert main(["index", str(library_folder), "--store", str(folder), "--model", "tiny"]) == 1
    return folder


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """The exit code and the parsed output of a command with `--json`."""
    capsys.readouterr()
    code = main([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def imported_modules(code: str) -> set[str]:
    """The modules of `HEAVY_MODULES` that a Python program imports."""
    check = f"print(' '.join(name for name in {HEAVY_MODULES} if name in sys.modules))"
    result = subprocess.run([sys.executable, "-c", f"import sys; {code}; {check}"], capture_output=True, check=True)
    return set(result.stdout.decode().splitlines()[-1].split())


@pytest.mark.slow
def test_reranking_lowers_recall_in_no_task_of_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report = run_json(capsys, "demo", "--out", str(tmp_path))
    assert code == 0
    assert len(report["tasks"]) == 6
    worse = {task for task, metrics in report["tasks"].items() if metrics["reranked recall@1"] < metrics["recall@1"]}
    assert not worse


def test_index_reports_failed_and_skipped_files(
    library_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["index", str(library_folder), "--store", str(tmp_path / "store"), "--model", "tiny"]
    assert main(arguments) == 1
    output = re.sub(r"[\s│]+", "", capsys.readouterr().out)
    assert "corrupt[x].png:" in output
    assert "1.csv" in output
    code, summary = run_json(capsys, *arguments)
    assert code == 1
    assert summary["added"] == 0
    assert summary["unchanged"] == summary["stored"] == 37
    assert [failure["source"] for failure in summary["failed"]] == [str(library_folder / "corrupt [x].png")]
    assert summary["skipped"] == {".csv": 1}


@pytest.mark.parametrize(
    ("query", "kind", "name", "locator"),
    [
        (STAR.caption(), "picture", "star.png", ""),
        (MOVER.caption(), "clip", "mover.mp4", "t=0,4"),
        (SLIDE.caption(), "page", "slides.pdf", "page=2"),
        ("a cyan square on the left", "text", "notes.md", "lines=5,7"),
    ],
)
def test_search_by_text_finds_each_kind(
    query: str, kind: str, name: str, locator: str, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, hits = run_json(capsys, "search", query, "--store", str(store), "--kind", kind, "--limit", "3")
    assert code == 0
    assert (Path(hits[0]["source"]).name, hits[0]["locator"], hits[0]["kind"]) == (name, locator, kind)
    assert all(hit["place"] == hit["locator"] for hit in hits)


def test_search_by_image_and_by_image_and_text(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Scene(STAR.things[:1], 2).draw(Random(8)).save(tmp_path / "half.png")
    STAR.draw(Random(9)).save(tmp_path / "whole.png")
    common = ("--store", str(store), "--kind", "picture")
    _, hits = run_json(capsys, "search", "--image", str(tmp_path / "whole.png"), *common)
    assert Path(hits[0]["source"]).name == "star.png"
    text = Scene(STAR.things[1:]).caption()
    _, hits = run_json(capsys, "search", text, "--image", str(tmp_path / "half.png"), *common)
    assert "star.png" in [Path(hit["source"]).name for hit in hits[:3]]


def test_repeated_kind_searches_all_given_kinds(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("search", "a star", "--store", str(store), "--limit", "40", "--kind", "clip", "--kind", "page")
    _, hits = run_json(capsys, *arguments)
    assert {hit["kind"] for hit in hits} == {"clip", "page"}


def test_rerank_sorts_by_rerank_score_and_html_is_self_contained(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page" / "hits.html"
    arguments = ["search", "a red star <b>&", "--store", str(store), "--rerank", "--candidates", "12"]
    arguments += ["--html", str(page)]
    code, hits = run_json(capsys, *arguments)
    assert code == 0
    assert len(hits) == 10
    scores = [hit["rerank_score"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    html = page.read_text(encoding="utf-8")
    assert "a red star &lt;b&gt;&amp;" in html
    assert html.count("<figure") == 10
    assert "http" not in html.replace("<!doctype html>", "")
    assert main(arguments) == 0
    assert "rerank" in capsys.readouterr().out


@pytest.mark.parametrize("remains", ["empty", "missing", "other"])
def test_index_keeps_points_of_a_folder_that_may_be_a_disk_that_is_not_mounted(
    remains: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("disk/a.txt", "notes/b.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    arguments = ("index", str(tmp_path / "disk"), str(tmp_path / "notes"), "--store", str(tmp_path / "store"))
    assert main([*arguments, "--model", "tiny"]) == 0
    (tmp_path / "disk" / "a.txt").unlink()
    if remains == "missing":
        (tmp_path / "disk").rmdir()
    elif remains == "other":
        (tmp_path / "disk" / "c.csv").touch()
    _, summary = run_json(capsys, *arguments)
    assert (summary["deleted"], summary["stored"]) == ((1, 1) if remains == "other" else (0, 2))
    assert summary["kept"] == ({str(tmp_path / "disk"): 1} if remains == "empty" else {})


def test_hits_that_the_reranker_cannot_read_are_shown_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library, page = tmp_path / "library", tmp_path / "page.html"
    library.mkdir()
    Image.new("RGB", (64, 48), "red").save(library / "gone.png")
    arguments = ["--store", str(tmp_path / "store")]
    assert main(["index", str(library), *arguments, "--model", "tiny"]) == 0
    (library / "gone.png").unlink()
    arguments = ["search", "a star", *arguments, "--reranker", "tiny", "--html", str(page)]
    capsys.readouterr()
    code, (hit,) = run_json(capsys, *arguments)
    assert code == 0
    assert "rerank_score" not in hit
    assert "does not exist" in hit["rerank_error"]
    assert "not reranked: " in page.read_text(encoding="utf-8")
    assert main(arguments) == 0
    assert "notreranked:" in re.sub(r"[\s│]", "", capsys.readouterr().out)


def test_page_escapes_names_and_texts(tmp_path: Path) -> None:
    """No name or text can close an attribute or open a tag, and previews of missing files are left out."""
    hostile = "\"><script>alert('x')</script>{{ 7 * 7 }}"
    documents = [
        Document(f"/tmp/{hostile}.png", "picture", image=f"/tmp/{hostile}.png"),
        Document(f"/tmp/{hostile}.txt", "text", text=hostile),
    ]
    hits = [Hit(id=str(number), score=0.5, document=document) for number, document in enumerate(documents)]
    page = tmp_path / "page.html"
    write_page(
        page, hostile, [QueryResult({"text": hostile}, hits, hostile, "0"), QueryResult({"text": "x"}, [])], hostile
    )
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&#34;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;{{ 7 * 7 }}" in html
    # Without the escaped texts, only the attributes' own quotes are left.
    assert all('"' not in value for value in re.findall(r'title="([^"]*)"[^>]', html))
    assert html.count("<figure") == 2
    assert html.count('class="match"') == 1
    assert "Nothing found." in html


def test_search_errors_exit_with_2_and_name_the_reason(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--store", str(store)]) == 2
    assert "nothing to search by" in capsys.readouterr().out
    assert main(["search", "x", "--store", str(tmp_path / "none")]) == 2
    assert "there is no store at" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()
    code, error = run_json(capsys, "search", "x", "--store", str(store), "--collection", "other")
    assert code == 2
    assert "no collection 'other'" in error["error"]
    (tmp_path / "file").touch()
    code, error = run_json(capsys, "search", "x", "--store", str(store), "--html", str(tmp_path / "file" / "page.html"))
    assert code == 2
    assert str(tmp_path / "file") in error["error"]
    assert main(["search", "x", "--store", str(store), "--limit", "0"]) == 2
    assert "at least 1" in capsys.readouterr().out
    assert main(["search", "x", "--store", str(store), "--image", str(tmp_path / "no.png")]) == 2
    assert "does not exist" in capsys.readouterr().out


def test_files_above_the_limit_of_their_size_are_read_if_it_is_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the loader, the embedder and the reranker. What follows the image in the file is not decoded."""
    picture = tmp_path / "pictures" / "a.png"
    picture.parent.mkdir()
    Image.new("RGB", (64, 64), "red").save(picture)
    with picture.open("ab") as file:
        file.truncate(3 * 2**20)
    place = ("--store", str(tmp_path / "store"))
    index = ("index", str(picture.parent), *place, "--model", "tiny", "--max-media")
    code, report = run_json(capsys, *index, "2")
    assert (code, report["added"]) == (1, 0)
    assert "the media policy allows 2097152 (MediaPolicy.max_bytes)" in report["failed"][0]["reason"]
    code, report = run_json(capsys, *index, "4")
    assert (code, report["added"]) == (0, 1)
    search = ("search", *place, "--image", str(picture), "--rerank", "--max-media")
    code, error = run_json(capsys, *search, "2")
    assert code == 2
    assert "(MediaPolicy.max_bytes)" in error["error"]
    code, hits = run_json(capsys, *search, "4")
    assert code == 0
    assert hits[0]["rerank_score"] > 0
    queries = tmp_path / "queries.jsonl"
    queries.write_text(json.dumps({"id": "a", "image": str(picture), "relevant": ["a.png"]}))
    evaluate = ("eval", str(queries), *place, "--max-media")
    for limit, used in (("2", []), ("4", ["a"])):
        code, figures = run_json(capsys, *evaluate, limit)
        assert (code, figures.get("queries", [])) == (0 if used else 2, used), figures
    assert main([*evaluate, "0"]) == 2


def test_index_with_other_dimensions_than_the_store_exits_with_2(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("index", str(tmp_path), "--store", str(store), "--model", "tiny", "--dimensions", "32")
    code, error = run_json(capsys, *arguments)
    assert code == 2
    assert "dimensions is 128 there and 32 here" in error["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Usage"),
        (["nonsense"], "nonsense"),
        (["search", "x"], "--store"),
        (["search", "x", "--store", "s", "--kind", "image"], "--kind"),
        (["search", "x", "--store", "s", "--limit", "many"], "--limit"),
        (["index", "--store", "s"], "PATH"),
        (["index", "x", "--store", "s", "--segment", "0"], "--segment"),
        (["index", "x", "--store", "s", "--segment", "inf"], "--segment"),
        (["index", "x", "--store", "s", "--segment", "nan"], "--segment"),
        (["search", "x", "--store", "s", "--limit", "9" * 20], "--limit"),
        (["search", "x", "--store", "s", "--candidates", "9" * 20], "--candidates"),
        (["eval", "q.jsonl", "--store", "s", "--at", "9" * 20], "--at"),
        (["eval", "q.jsonl", "--store", "s", "--candidates", "9" * 20], "--candidates"),
        (["demo", "--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert reason in captured.out + captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"qwen3vl {version('qwen3vl')}\n"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("index", "store collection model revision dimensions segment fuse-page-text keep device dtype json verbose"),
        ("search", "store collection image limit kind instruction rerank reranker candidates model device dtype html"),
        ("search", "json verbose"),
        ("demo", "out json verbose"),
        ("doctor", "url json verbose"),
    ],
)
def test_help_lists_every_option(command: str, options: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    output = capsys.readouterr().out
    assert {f"--{name}" for name in options.split()} <= set(re.findall(r"--[a-z-]+", output))


def test_verbose_is_accepted_before_and_after_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path / "none")
    for arguments in (["--verbose", "search", "x", "--store", store], ["search", "x", "--store", store, "--verbose"]):
        assert main(arguments) == 2
        assert "there is no store at" in capsys.readouterr().out


def test_completion_script_is_printed() -> None:
    environment = {**os.environ, "_QWEN3VL_COMPLETE": "source_bash"}
    result = subprocess.run(
        [sys.executable, "-m", "qwen3vl"], check=False, capture_output=True, text=True, env=environment
    )
    assert result.returncode == 0
    assert "_QWEN3VL_COMPLETE=complete_bash" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "run", "resumable"),
    [
        (["index", ".", "--store", "none"], "index.run_index", True),
        (["copy", "none", "other"], "copy.run_copy", True),
        (["eval", "mmeb-v2", "--data", "none"], "mmeb.run_mmeb", True),
        (["eval", "none", "--store", "none"], "evaluate.run_eval", False),
        (["search", "x", "--store", "none"], "search.run_search", False),
        (["doctor"], "doctor.run_doctor", False),
    ],
)
def test_interrupt_exits_with_130_and_says_what_is_kept(
    arguments: list[str],
    run: str,
    resumable: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"qwen3vl.cli.{run}", interrupt)
    assert main(arguments) == 130
    printed = capsys.readouterr().out
    assert printed.startswith("interrupted")
    assert ("the next run continues" in printed) is resumable


def test_doctor_finds_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = run_json(capsys, "doctor")
    assert code == 0
    states = {finding["what"]: finding["state"] for finding in findings}
    assert states["test run"] == states["torch"] == states["stores"] == "ok"
    assert all(finding["told"] for finding in findings)
    assert main(["doctor"]) == 0


@pytest.mark.parametrize(
    ("library", "subjects"),
    [("torch", {"models run on", "test run"}), ("av", {"video decoders"}), ("huggingface_hub", {"models downloaded"})],
)
def test_doctor_reports_libraries_that_cannot_be_imported(library: str, subjects: set[str], tmp_path: Path) -> None:
    """As a broken installation: the package is there, and its import fails."""
    (tmp_path / f"{library}.py").write_text('raise OSError("libbroken.so: cannot open shared object file")')
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-m", "qwen3vl", "doctor", "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert result.returncode == 1, result.stderr
    findings = {finding["subject"]: finding for finding in json.loads(result.stdout)}
    for subject in subjects:
        assert findings[subject]["state"] == "wrong"
        assert "OSError: libbroken.so: cannot open shared object file" in findings[subject]["details"]
    assert findings["stores"]["state"] == findings["image decoders"]["state"] == "ok"


def test_import_help_and_usage_errors_load_no_heavy_module(tmp_path: Path) -> None:
    assert imported_modules("import qwen3vl, qwen3vl.cli") == set()
    assert imported_modules("from qwen3vl.cli import main; main(['--help']); main(['search', '--help'])") == set()
    search = f"main(['search', 'x', '--store', {str(tmp_path / 'none')!r}])"
    assert "torch" not in imported_modules(f"from qwen3vl.cli import main; {search}")
    assert subprocess.run([sys.executable, "-m", "qwen3vl", "--help"], check=False, capture_output=True).returncode == 0


def test_transformers_is_not_needed() -> None:
    use = "from qwen3vl import Embedder, Reranker; Embedder('tiny').embed('a'); Reranker('tiny').score('a', ['b'])"
    assert "transformers" not in imported_modules(use)


def test_each_document_finds_itself(library_folder: Path, store: Path, tiny_embedder: Embedder) -> None:
    documents = [item for item in Loader().load([library_folder]) if isinstance(item, Document)]
    opened = open_store(str(store))
    try:
        retriever = Retriever(tiny_embedder, opened)
        for document in documents:
            if "corrupt" not in document.source:
                (hit,) = retriever.search(document.input, 1)
                assert (hit.document.name, round(hit.score, 4)) == (document.name, 1.0)
    finally:
        opened.close()


def test_page_of_an_application_is_described_by_its_locator() -> None:
    """Only pages that a `Loader` yields have their numbers in the metadata."""
    page = Document("report.pdf", "page", locator="page=3", image="report.pdf#page=3")
    assert describe_content(page) == "page 3"
    assert describe_content(replace(page, metadata={"page": 3, "pages": 12})) == "page 3 of 12"
    assert describe_content(Document("scan.png", "page", text="a scan")) == "a scan"

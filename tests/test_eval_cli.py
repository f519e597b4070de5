"""`qwen3vl eval`: its figures, its page in a browser, and its errors."""

from __future__ import annotations

import errno
import json
import re
import sys
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from qwen3vl import Document, Embedder, Reranker, open_store
from qwen3vl.cli import main
from qwen3vl.cli.eval_page import write_eval_page
from qwen3vl.cli.evaluate import print_tables
from qwen3vl.demo.scenes import Scene
from qwen3vl.evaluation import EvalQuery, Evaluation, Relevance, Setting, SettingResult, evaluate, grid, read_queries
from qwen3vl.evaluation.measures import measure
from qwen3vl.media.policy import DEFAULT_POLICY
from qwen3vl.stores import Hit
from tests.support.browser import needs_chromium, open_browser, open_page
from tests.support.sample_library import MOVER, SLIDE, STAR

GRID = ("--mode", "dense", "--dimensions", "16", "--candidates", "10", "--at", "1", "--at", "10")


@pytest.fixture(scope="module")
def store(library_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    assert main(["index", str(library_folder), "--store", str(folder), "--model", "tiny"]) == 1
    return folder


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("queries")
    Scene(STAR.things, 1).draw(Random(1)).save(folder / "sketch.png")
    lines: list[dict[str, Any]] = [
        {"id": "star", "text": STAR.caption(), "relevant": ["star.png"]},
        {"id": "sketch", "image": "sketch.png", "text": "a blue ring", "relevant": ["star.png"], "kind": "picture"},
        {"id": "slide", "text": SLIDE.caption(), "relevant": {"slides.pdf#page=2": 2, "slides.pdf": 1}},
        {"id": "mover", "text": MOVER.caption(), "relevant": ["mover.mp4"], "kind": "clip"},
        {"id": "hard", "text": "<b>nothing</b> & nobody", "relevant": ["other.mp4", "7.jpg"]},
    ]
    path = folder / "queries.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def page_file(store: Path, queries: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "new" / "eval.html"
    assert main(["eval", str(queries), "--store", str(store), *GRID, "--html", str(path)]) == 0
    return path


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any, str]:
    """The exit code, the JSON and the messages of `qwen3vl eval`."""
    capsys.readouterr()
    code = main(["eval", *arguments, "--json"])
    output = capsys.readouterr()
    return code, json.loads(output.out), output.err


def test_figures_are_those_of_evaluate_and_the_page_shows_them(
    store: Path,
    queries: Path,
    tiny_embedder: Embedder,
    tiny_reranker: Reranker,
    page_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, figures, _ = run_json(capsys, str(queries), "--store", str(store), *GRID)
    assert code == 0
    opened = open_store(str(store))
    settings = grid([store.name], ["dense"], dimensions=[16], candidates=[None, 10])
    expected = evaluate(
        read_queries(queries), {store.name: opened}, settings, tiny_embedder, tiny_reranker, cutoffs=(1, 10)
    ).to_dict()
    opened.close()
    assert figures == json.loads(json.dumps(expected))
    assert [setting["candidates"] for setting in figures["settings"]] == [None, None, 10, 10]
    html = page_file.read_text(encoding="utf-8")
    assert "http" not in html
    assert "<script" not in html
    for setting in figures["settings"]:
        assert html.count(setting["name"]) >= 2
        for name in figures["measures"]:
            assert f"{setting['groups']['all'][name]['mean']:.3f}" in html
    assert "&lt;b&gt;nothing&lt;/b&gt; &amp; nobody" in html
    assert html.count("<table>") == 2
    assert html.count('class="match"') >= 2  # the two relevant documents of the last query are shown, found or not


def test_names_and_queries_that_cannot_be_used(
    store: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"id": "a", "text": "a star", "relevant": ["star.png", "gone.png"]}\n')
    code, error, _ = run_json(capsys, str(path), "--store", str(store))
    assert code == 2
    assert "'gone.png' (query 'a')" in error["error"]
    code, figures, messages = run_json(capsys, str(path), "--store", str(store), "--allow-missing", "--at", "40")
    assert code == 0
    assert "1 relevant names are of no document and count as not found: gone.png" in " ".join(messages.split())
    assert figures["missing"] == {"gone.png": "a"}
    assert main(["eval", str(path), "--store", str(store), "--allow-missing", "--at", "40"]) == 0
    table = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert f"{store.name}: dense" in table
    assert "0.50–0.50" in table
    assert figures["settings"][0]["groups"]["all"]["recall@40"]["mean"] == 0.5
    path.write_text(
        path.read_text().replace(', "gone.png"', "") + '{"id": "b", "image": "no.png", "relevant": ["0.png"]}'
    )
    code, figures, messages = run_json(capsys, str(path), "--store", str(store))
    assert code == 1
    assert list(figures["failed"]) == ["b"]
    assert "1 queries cannot be used" in messages
    assert figures["queries"] == ["a"]


@pytest.mark.parametrize("width", [80, 60])
def test_tables_fit_into_narrow_terminals(width: int) -> None:
    """Headings and figures are whole; columns that do not fit come in another part below."""
    printed = StringIO()
    console = Console(file=printed, width=width)
    document = Document("/tmp/1.png", "picture", image="/tmp/1.png")
    kinds = ({"text": "a"}, {"text": "a", "image": "b"}, {"text": "a", "video": "b"})
    queries = [EvalQuery(str(number), kind, {"/tmp/1.png": 1}) for number, kind in enumerate(kinds)]
    hits = [[Hit("1", document, 0.5)]] * len(queries)
    cutoffs = (1, 5, 10, 20, 50, 100)
    scores = measure(hits, [query.relevant for query in queries], cutoffs)
    results = [SettingResult(Setting("library", candidates=100 + number), hits, scores) for number in range(12)]
    relevance = Relevance([query.relevant for query in queries], {"/tmp/1.png": document}, {})
    print_tables(console, Evaluation(queries, relevance, results, {}).to_dict())
    output = printed.getvalue()
    assert max(map(len, output.splitlines())) <= width
    words = re.sub(r"[│┃]", " ", output).split()
    for name in ("ndcg@100", "mrr@100", *(f"recall@{cutoff}" for cutoff in cutoffs)):
        assert words.count(name) == 1 + (name == "ndcg@100")
    assert words.count("1.00–1.00") == len(results) * 8
    for name in ("all (3)", "query: text (1)", "query: text + image (1)", "query: text + video (1)"):
        assert output.count(f"│ {name} ") >= 2
    assert output.count(" 12 ┃") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--store", "STORE", "--store", "STORE"], "names the same store twice"),
        (["--store", "STORE", "--store", "STORE/"], "names the same store twice"),
        (["--store", "STORE", "--store", "qdrant:STORE/."], "names the same store twice"),
        (["--store", "STORE", "--split", "test"], "is a file, which has no splits"),
        (["--store", "STORE", "--dimensions", "129"], "dimensions is 129"),
        (["--store", "STORE", "--mode", "text"], "cannot be searched with mode='text'"),
        (["--store", "STORE", "--rerank", "--at", "50"], "20 candidates of the reranker are less than the 50 hits"),
        (["--store", "STORE/none"], "there is no store at"),
    ],
)
def test_errors_exit_with_2_and_name_the_reason(
    arguments: list[str], reason: str, store: Path, queries: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, error, _ = run_json(capsys, str(queries), *(each.replace("STORE", str(store)) for each in arguments))
    assert code == 2
    assert reason in error["error"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--html", "FOLDER"], "it is a folder"),
        (["--html", "FOLDER/file/page.html"], "file is a file, and no folder"),
        (["--rerank", "--candidates", "5"], "5 candidates of the reranker are less than the 10 hits"),
        (["--dimensions", "129"], "dimensions is 129"),
        (["MISSING"], "'gone.png' (query 'a')"),
    ],
)
def test_what_is_wrong_is_found_before_models_are_loaded(
    arguments: list[str], reason: str, store: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    missing = tmp_path / "missing.jsonl"
    missing.write_text('{"id": "a", "text": "a star", "relevant": ["gone.png"]}\n')
    path = missing if arguments == ["MISSING"] else queries
    options = [each.replace("FOLDER", str(tmp_path)) for each in arguments if each != "MISSING"]
    no_model = ("--model", str(tmp_path / "none"))
    code, error, _ = run_json(capsys, str(path), "--store", str(store), *no_model, *options)
    assert code == 2
    assert reason in error["error"]


@pytest.mark.parametrize(("module", "package"), [("pytrec_eval", "pytrec-eval-terrier"), ("scipy.special", "scipy")])
def test_the_extra_is_looked_for_before_models_are_loaded(
    module: str,
    package: str,
    store: Path,
    queries: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, error, _ = run_json(capsys, str(queries), "--store", str(store), "--model", str(tmp_path / "none"))
    assert code == 2
    assert f"an evaluation needs {package}, which is not installed" in error["error"]


def test_figures_are_printed_if_the_page_cannot_be_written(
    store: Path, queries: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fail)  # a full disk, which nothing tells before
    options = ("--store", str(store), "--html", str(tmp_path / "page.html"))
    code, figures, messages = run_json(capsys, str(queries), *options)
    assert code == 1
    assert figures["queries"] == ["star", "sketch", "slide", "mover", "hard"]
    joined = "".join(messages.split())  # a long path is broken anywhere
    assert "page.html cannot be written: [Errno 28] No space left on device".replace(" ", "") in joined


def hostile_evaluation(text: str) -> Evaluation:
    documents = [Document(f"/tmp/{text}.png", "picture", image=f"/tmp/{text}.png"), Document(text, "text", text=text)]
    query = EvalQuery(text, {"text": text, "image": f"/tmp/{text}.png"}, {text: 1, documents[0].source: 1})
    hits = [[Hit("1", documents[0], 0.5, rerank_error=text)]]
    settings = [Setting(text), Setting(text, instruction=text)]
    results = [SettingResult(setting, hits, measure(hits, [query.relevant], (1, 10))) for setting in settings]
    relevance = Relevance([query.relevant], {document.source: document for document in documents}, {text: text})
    return Evaluation([query], relevance, results, {text: text})


def test_page_escapes_names_and_texts(tmp_path: Path) -> None:
    hostile = "\"><script>alert('x')</script>{{ 7 * 7 }}\u202e"
    evaluation = hostile_evaluation(hostile)
    page = tmp_path / "page.html"
    write_eval_page(page, evaluation, evaluation.to_dict(), [hostile], DEFAULT_POLICY)
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "\u202e" not in html
    assert html.count("&#34;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;{{ 7 * 7 }}\\u202e") >= 8
    assert "not found" in html
    assert all('"' not in value for value in re.findall(r'title="([^"]*)"[^>]', html))


@needs_chromium
def test_page_in_a_browser(page_file: Path) -> None:
    html = page_file.read_text(encoding="utf-8")
    colours = set()
    with open_browser() as browser:
        for scheme, width in (("light", 1200), ("dark", 420)):
            with open_page(browser, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
                page.set_content(html)
                images = page.evaluate("[...document.images].map(image => image.naturalWidth)")
                assert len(images) >= 5
                assert all(images)
                assert page.locator("table").count() == 2
                assert page.locator("td svg").first.bounding_box()["width"] > 80
                # Wide tables scroll by themselves, not the whole page.
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                style = "getComputedStyle(document.querySelector('td')).color"
                colours.add(page.evaluate(style))
    assert len(colours) == 2

"""`qwen3vl eval mmeb-v2`: its results, what it passes over, and its errors."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen3vl import Embedder
from qwen3vl.cli import main
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.files import ResultFiles
from qwen3vl.evaluation.mmeb_v2.runner import evaluate_dataset
from tests.mmeb_v2.data_sets import WRITERS

CHOSEN = ("VOC2007", "WebQA", "ViDoRe_docvqa")
RESULTS = ("_info.jsonl", "_pred.jsonl", "_score.json")


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    """The exit code and the parsed output of the command with `--json`."""
    capsys.readouterr()
    code = main(["eval", "mmeb-v2", *arguments, "--model", "tiny", "--json"])
    return code, json.loads(capsys.readouterr().out)


def options(data: Path, out: Path, *datasets: str) -> list[str]:
    return ["--data", str(data), "--out", str(out), "--datasets", ",".join(datasets or CHOSEN)]


def written(out: Path) -> dict[str, bytes]:
    """The result files that do not depend on where they are."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.name.endswith(RESULTS)
    }


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of the three data sets, of the tiny pair."""
    out = tmp_path_factory.mktemp("results")
    assert main(["eval", "mmeb-v2", *options(data, out), "--model", "tiny", "--rerank", "--top-k", "3"]) == 0
    return out


def test_files_have_the_official_names(finished: Path) -> None:
    names = [f"image/VOC2007{ending}" for ending in RESULTS]
    for name in ("image/WebQA", "visdoc/ViDoRe_docvqa"):
        names += [f"{name}{ending}" for ending in (*RESULTS, "_rerank_pred.jsonl", "_rerank_score.json")]
    assert set(written(finished)) == {f"tiny/{name}" for name in names}
    scores = json.loads((finished / "tiny/image/WebQA_rerank_score.json").read_text())
    assert (scores["num_pred"], scores["topk"], scores["reranker_model"]) == (4, 3, "tiny")


def test_figures(data: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, figures = run_json(capsys, *options(data, finished), "--rerank", "--top-k", "3")
    assert code == 0
    assert set(figures["datasets"]) == set(CHOSEN)
    own = {name: scores[DATASETS[name].group.metric] * 100 for name, scores in figures["datasets"].items()}
    averages = figures["averages"]
    assert averages["Image CLS"] == {"mean": own["VOC2007"], "done": 1, "datasets": 10}
    assert averages["Image Overall"]["mean"] == pytest.approx((own["VOC2007"] + own["WebQA"]) / 2)
    assert averages["Video Overall"] == {"mean": None, "done": 0, "datasets": 18}
    assert averages["VisDoc Overall"]["mean"] == own["ViDoRe_docvqa"]
    assert averages["All"]["mean"] == pytest.approx(sum(own.values()) / 3)
    assert averages["All"]["datasets"] == 78
    retrieval = figures["retrieval"]
    assert retrieval["embeddings"]["Avg"]["mean"] == pytest.approx((own["WebQA"] + own["ViDoRe_docvqa"]) / 2)
    assert retrieval["reranked"]["Avg"]["done"] == 2
    assert retrieval["reranked"]["Avg"]["datasets"] == 44


def test_tables(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    arguments = options(data, tmp_path, "image")
    assert main(["eval", "mmeb-v2", *arguments, "--model", "tiny", "--reranker", "tiny", "--top-k", "3"]) == 1
    printed = capsys.readouterr().out
    assert "┃ Embedding-2B ┃ Embedding-8B ┃" in printed
    assert "┃ Embedding-2B ┃ Reranker-2B ┃ Reranker-8B ┃" in printed
    row = next(line for line in printed.splitlines() if "Image Overall" in line)
    assert [cell.strip() for cell in row.split("│")][4:6] == ["75.0", "80.1"]
    assert "ImageNet-1K failed: " in printed
    assert "more failed; --json names all" in printed


def test_done_data_sets_are_passed_over(data: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*.json*")}
    run_json(capsys, *options(data, finished), "--rerank", "--top-k", "3")
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*.json*")} == before
    (finished / "tiny/image/WebQA_pred.jsonl").rename(finished / "hidden")
    code, _ = run_json(capsys, *options(data, finished))
    assert code == 0
    assert (finished / "hidden").read_bytes() == (finished / "tiny/image/WebQA_pred.jsonl").read_bytes()


@pytest.mark.slow
def test_killed_and_run_again(data: Path, finished: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "qwen3vl", "eval", "mmeb-v2", *options(data, tmp_path, *reversed(CHOSEN))]
    process = subprocess.Popen([*arguments, "--model", "tiny", "--rerank", "--top-k", "3"])
    first = tmp_path / "tiny/image/VOC2007_score.json"
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    stamp = first.stat().st_mtime_ns
    assert len(written(tmp_path)) < len(written(finished))
    assert main([*arguments[3:], "--model", "tiny", "--rerank", "--top-k", "3"]) == 0
    assert written(tmp_path) == written(finished)
    assert first.stat().st_mtime_ns == stamp


def test_vectors_of_an_interrupted_run_are_used(data: Path, tmp_path: Path) -> None:
    spec, files = DATASETS["WebQA"], ResultFiles(tmp_path, "WebQA")
    with Embedder("tiny", device="cpu") as embedder:
        evaluate_dataset(spec, data, embedder, files)
        made = embedder.engine.stats.items
        (tmp_path / "WebQA_score.json").unlink()
        (tmp_path / "WebQA_tgt.npz").unlink()
        scores = evaluate_dataset(spec, data, embedder, files)
        assert embedder.engine.stats.items - made == 6  # the candidates
    assert scores["num_pred"] == 4


@pytest.mark.parametrize("content", [b"", b"no archive", b"cut", b"other arrays"])
def test_damaged_vectors_are_made_again(content: bytes, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, "WebQA")
    vectors = np.ones((3, 4), dtype=np.float32)
    files.write_vectors("qry", vectors, "digest")
    file = tmp_path / "WebQA_qry.npz"
    found = files.read_vectors("qry", "digest")
    assert found is not None
    assert np.array_equal(found, vectors)
    if content == b"other arrays":
        np.savez(file, other=vectors)
    else:
        file.write_bytes(file.read_bytes()[:200] if content == b"cut" else content)
    assert files.read_vectors("qry", "digest") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"dtype": "auto"}', '{"dtype": "auto", "models": {"other": {}}}'])
def test_a_damaged_note_of_the_models_is_named(
    content: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny/origin.json"
    file.parent.mkdir()
    file.write_text(content)
    code, output = run_json(capsys, *options(data, tmp_path, "VOC2007"))
    assert code == 2
    assert output["error"].startswith(f"{file}, which notes the models of the results beside it, is damaged: ")


def test_vectors_in_the_official_files(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run_json(capsys, *options(data, tmp_path, "VOC2007"), "--pickles")
    assert code == 0
    folder = tmp_path / "tiny/image"
    queries = pickle.loads((folder / "VOC2007_qry").read_bytes())
    candidates = pickle.loads((folder / "VOC2007_tgt").read_bytes())
    assert np.array_equal(queries, np.load(folder / "VOC2007_qry.npz")["vectors"])
    assert list(candidates) == json.loads((folder / "VOC2007_info.jsonl").read_text().splitlines()[0])["cand_names"]
    assert np.array_equal(np.stack(list(candidates.values())), np.load(folder / "VOC2007_tgt.npz")["vectors"])


def test_failures_of_single_data_sets(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "data"
    for name in ("VOC2007", "ChartQA"):
        WRITERS[name](copy)
    (copy / "image-tasks/VOC2007/000002.png").write_bytes(b"no picture")
    code, figures = run_json(capsys, *options(copy, tmp_path / "out", "IMG_CLS", "ChartQA"))
    assert code == 1
    assert set(figures["datasets"]) == {"ChartQA"}
    assert figures["failed"]["VOC2007"].startswith("of 4 queries of VOC2007, 1 cannot be used; the first is ")
    assert "000002.png" in figures["failed"]["VOC2007"]
    assert "hf download ziyjiang/MMEB_Test_Instruct" in figures["failed"]["ImageNet-1K"]


def test_a_row_of_another_form_and_an_empty_file_end_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    WRITERS["ChartQA"](data)
    annotations = data / "annotation/ziyjiang/MMEB_Test_Instruct"
    (annotations / "README.md").unlink()  # it names no other data set
    for name, line in (
        ("VOC2007", '{"qry_inst": "", "qry_text": "", "qry_img_path": "", "tgt_text": []}'),
        ("SUN397", ""),
    ):
        (annotations / name).mkdir()
        (annotations / name / "test.jsonl").write_text(line)
    (out / "tiny/image").mkdir(parents=True)  # what earlier versions wrote for a file without rows
    for ending, content in (("score.json", '{"hit@1": 0.0, "num_pred": 0, "num_data": 0}'), ("pred.jsonl", "")):
        (out / f"tiny/image/SUN397_{ending}").write_text(content)
    code, figures = run_json(capsys, *options(data, out, "VOC2007", "SUN397", "ChartQA"))
    assert code == 1
    assert set(figures["datasets"]) == {"ChartQA"}
    assert figures["failed"]["VOC2007"].startswith("VOC2007 cannot be read: ")
    assert figures["failed"]["SUN397"].startswith("SUN397 has no queries: ")


def test_errors(data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, output = run_json(capsys, *options(data, tmp_path, "Nothing"))
    assert (code, output["error"].split(". Name")[0]) == (2, "there is no data set 'Nothing' in MMEB-v2")
    code, output = run_json(capsys, *options(data / "missing", tmp_path))
    assert code == 2
    assert output["error"].startswith("there is no folder ")
    code, output = run_json(capsys, *options(data, finished), "--dtype", "bfloat16")
    assert (code, "are of dtype auto, not bfloat16. Name another folder" in output["error"]) == (2, True)
    code, output = run_json(capsys, *options(data, finished), "--rerank", "--top-k", "2")
    assert code == 1
    assert "has results of WebQA with 3 reranked candidates, not 2" in output["failed"]["WebQA"]


def test_results_of_another_model(data: Path, finished: Path, checkpoints: Path, tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    shutil.copytree(checkpoints / "embedding", model, copy_function=os.link)
    arguments = ["eval", "mmeb-v2", *options(data, finished), "--model", str(model), "--json"]
    done = subprocess.run([sys.executable, "-m", "qwen3vl", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "are of another embedding model: weights is " in json.loads(done.stdout)["error"]


def test_a_file_of_queries_by_this_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["eval", "./mmeb-v2", "--store", str(tmp_path), "--json"]) == 2
    assert "there are no queries at mmeb-v2" in json.loads(capsys.readouterr().out)["error"]


@pytest.mark.slow
def test_commands_of_the_documentation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the tiny pair on the CPU, and for data sets that are not drawn here a message that they are missing."""
    page = (Path(__file__).parents[2] / "docs/mmeb.md").read_text(encoding="utf-8")
    lines = [shlex.split(line) for line in page.splitlines() if line.startswith("qwen3vl ")]
    assert len(lines) == 4
    for name in CHOSEN:
        WRITERS[name](tmp_path / "data")
    values = {
        "--data": str(tmp_path / "data"),
        "--model": "tiny",
        "--reranker": "tiny",
        "--device": "cpu",
        "--dtype": "float32",
    }
    for number, line in enumerate(lines):
        arguments = [values.get(before, word) for before, word in pairwise(line)]
        if "--model" not in arguments:
            arguments += ["--model", "tiny"]
        capsys.readouterr()
        assert main([*arguments, "--out", str(tmp_path / str(number))]) == 1
        printed = capsys.readouterr().out
        assert "hf download" in printed
        assert ("reranked" if "--rerank" in line or "--reranker" in line else "Image Overall") in printed

"""Predictions and measures are those of the official scripts, for every kind of loader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen3vl import Embedder, Reranker
from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.files import ResultFiles
from qwen3vl.evaluation.mmeb_v2.loaders import LOADERS
from qwen3vl.evaluation.mmeb_v2.runner import evaluate_dataset, rerank_dataset
from tests.mmeb_v2.answers import OFFICIAL_ANSWERS, TOP_K, differences, read_answers
from tests.mmeb_v2.data_sets import WRITERS
from tests.support.model_server import ModelServer

OFFICIAL: dict[str, Any] = json.loads(OFFICIAL_ANSWERS.read_text(encoding="utf-8"))
CHECKOUT = os.environ.get("MMEB_OFFICIAL")
"""A checkout of QwenLM/Qwen3-VL-Embedding."""
PYTHON = os.environ.get("MMEB_OFFICIAL_PYTHON")
"""A Python with its dependencies, as `tools/compare_mmeb.py` says."""
TOOLS = Path(__file__).parents[2] / "tools"


def test_every_kind_of_loader_has_official_answers() -> None:
    assert set(OFFICIAL) == set(WRITERS)
    assert {DATASETS[name].loader for name in OFFICIAL} == set(LOADERS)
    assert {spec.loader for spec in DATASETS.values()} >= set(LOADERS)


@pytest.mark.parametrize("name", WRITERS)
def test_answers_equal_the_official_ones(
    name: str, data: Path, golden_embedder: Embedder, golden_reranker: Reranker, tmp_path: Path
) -> None:
    spec = DATASETS[name]
    files = ResultFiles(tmp_path / spec.group.modality, name)
    evaluate_dataset(spec, data, golden_embedder, files)
    assert ("rerank_scores" in OFFICIAL[name]) == spec.reranked
    if spec.reranked:
        rerank_dataset(spec, data, golden_reranker, files, files, top_k=TOP_K)
    assert differences(read_answers(spec, tmp_path, data), OFFICIAL[name]) == []


def test_differences_are_found() -> None:
    official = OFFICIAL["WebQA"]
    ours = json.loads(json.dumps(official))
    assert differences(ours, official) == []
    ours["scores"]["map@5"] += 2e-6
    ours["predictions"][1]["prediction"].reverse()
    ours["info"][0]["label_name"] = 3
    ours["rerank_predictions"][2]["rerank_scores"][0] += 2e-5
    where = {line.split(":")[0].rsplit("/", 1)[0] for line in differences(ours, official)}
    assert where == {"/scores", "/predictions/1/prediction", "/info/0", "/rerank_predictions/2/rerank_scores"}


def test_models_in_a_server(data: Path, checkpoints: Path, tmp_path: Path) -> None:
    from qwen3vl_server import SERVER_POLICY, create_app

    app = create_app(
        embedder=Embedder(checkpoints / "embedding", instruction="Other.", device="cpu", policy=SERVER_POLICY),
        reranker=Reranker(checkpoints / "reranker", device="cpu", policy=SERVER_POLICY),
    )
    with ModelServer(app) as server:
        embedder, reranker = Embedder(server.url), Reranker(server.url)
        for name in ("VOC2007", "WebQA"):
            spec = DATASETS[name]
            files = ResultFiles(tmp_path / spec.group.modality, name)
            evaluate_dataset(spec, data, embedder, files)
            if spec.reranked:
                rerank_dataset(spec, data, reranker, files, files, top_k=TOP_K)
            assert differences(read_answers(spec, tmp_path, data), OFFICIAL[name]) == []
        with pytest.raises(InputError, match="of 5 candidates of ChartQA, 1 cannot be used; the first is text ''"):
            evaluate_dataset(DATASETS["ChartQA"], data, embedder, ResultFiles(tmp_path / "image", "ChartQA"))


@pytest.mark.skipif(not CHECKOUT, reason="MMEB_OFFICIAL names no checkout of QwenLM/Qwen3-VL-Embedding")
def test_descriptions_are_those_of_the_official_repository() -> None:
    command = [sys.executable, str(TOOLS / "check_mmeb.py"), "--official", str(CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not (CHECKOUT and PYTHON), reason="MMEB_OFFICIAL and MMEB_OFFICIAL_PYTHON name no official scripts")
def test_beside_the_official_scripts() -> None:
    command = [sys.executable, str(TOOLS / "compare_mmeb.py"), "--official", str(CHECKOUT), "--python", str(PYTHON)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

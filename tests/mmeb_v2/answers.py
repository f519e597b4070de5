"""What an evaluation answered, from its result files, and how two of them differ.

`official.json` has the answers of the official scripts to the data sets that `data_sets.py` draws, with the golden
checkpoints in float32 on a CPU: see `tools/compare_mmeb.py`, which writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec

OFFICIAL_ANSWERS = Path(__file__).with_name("official.json")
TOP_K = 5
"""How many candidates are reranked: fewer than most queries have."""
MEASURE_TOLERANCE = 1e-6
SCORE_TOLERANCE = 1e-5
"""Of the reranker's scores, as for the golden answers."""
DATA = "{data}"
"""Stands for the folder of all data in names that are paths."""
Answers = dict[str, Any]


def read_answers(spec: DatasetSpec, out: Path, data: Path) -> Answers:
    """Read the answers of a data set.

    Args:
        spec: The data set.
        out: The folder with a folder of results for each part of the benchmark.
        data: The folder of all data, which is left out of names.

    Returns:
        Queries, predictions and measures, and those of the reranker if there are any.
    """
    stem = f"{out / spec.group.modality / spec.name}"
    answers = {
        "info": _read_lines(f"{stem}_info.jsonl", data),
        "predictions": _read_lines(f"{stem}_pred.jsonl", data),
        "scores": json.loads(Path(f"{stem}_score.json").read_text(encoding="utf-8")),
    }
    if Path(f"{stem}_rerank_score.json").is_file():
        answers["rerank_predictions"] = _read_lines(f"{stem}_rerank_pred.jsonl", data)
        answers["rerank_scores"] = json.loads(Path(f"{stem}_rerank_score.json").read_text(encoding="utf-8"))
        del answers["rerank_scores"]["reranker_model"]  # a temporary folder
    return answers


def differences(ours: Answers, official: Answers) -> list[str]:
    """Compare answers.

    Args:
        ours: Our answers.
        official: Those of the official scripts.

    Returns:
        A line for each difference; empty if the answers are equal.
    """
    return list(_differences("", ours, official))


def _differences(where: str, ours: Any, official: Any) -> Iterator[str]:
    if isinstance(official, Mapping) and isinstance(ours, Mapping):
        if set(ours) != set(official):
            yield f"{where}: the keys {sorted(set(ours) ^ set(official))} are only in one of them"
        for key in official.keys() & ours.keys():
            yield from _differences(f"{where}/{key}", ours[key], official[key])
    elif isinstance(official, list) and isinstance(ours, list) and len(official) == len(ours):
        for number, (own, other) in enumerate(zip(ours, official, strict=True)):
            yield from _differences(f"{where}/{number}", own, other)
    elif isinstance(official, float) and isinstance(ours, (int, float)):
        tolerance = SCORE_TOLERANCE if "/rerank_predictions/" in where else MEASURE_TOLERANCE
        if abs(ours - official) > tolerance:
            yield f"{where}: {ours} here, {official} officially"
    elif ours != official or type(ours) is not type(official):
        yield f"{where}: {ours!r} here, {official!r} officially"


def _read_lines(file: str, data: Path) -> list[Any]:
    lines = Path(file).read_text(encoding="utf-8").replace(f"{data}/", f"{DATA}/").splitlines()
    return [json.loads(line) for line in lines]

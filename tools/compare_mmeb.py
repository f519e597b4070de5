"""Compares our evaluation of MMEB-v2 with the official scripts, run beside it on small data sets that are drawn here.

Both get the same files in the published formats and the golden checkpoints, in float32 on a CPU. Compared are the
queries, every prediction and every measure, of the embedding model and of the reranker.

    python tools/compare_mmeb.py --official CHECKOUT --python PYTHON [--datasets A,B] [--write]

PYTHON is that of an environment with the official dependencies: torch 2.8, transformers 4.57.3, qwen-vl-utils 0.0.14,
datasets, decord, opencv-python-headless, scipy, accelerate, pandas, requests, PyYAML, torchvision. With --write the
official answers become those that `tests/mmeb_v2` checks against.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from qwen3vl import Embedder, Reranker
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.files import ResultFiles
from qwen3vl.evaluation.mmeb_v2.runner import evaluate_dataset, rerank_dataset
from tests.golden import checkpoint
from tests.mmeb_v2.answers import OFFICIAL_ANSWERS, TOP_K, differences, read_answers
from tests.mmeb_v2.data_sets import WRITERS

MIN_GAP = 1e-5
"""Similarities that differ by less can be ranked either way by float32 on another machine."""


def main() -> int:
    """Compare, and return 1 if anything differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--official", type=Path, required=True)
    parser.add_argument("--python", required=True)
    parser.add_argument("--datasets", default=",".join(WRITERS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    names = options.datasets.split(",")
    with tempfile.TemporaryDirectory(prefix="mmeb-") as folder:
        return compare(Path(folder), names, options.official.resolve(), options.python, write=options.write)


def compare(folder: Path, names: Sequence[str], official: Path, python: str, *, write: bool) -> int:
    """Draw the data sets, run both evaluations, and print how they differ."""
    data, models = folder / "data", folder / "models"
    checkpoint.build_all(models)
    for name in names:
        WRITERS[name](data)
    run_official(folder / "official", data, models, names, official, python)
    run_ours(folder / "ours", data, models, names)
    all_answers = json.loads(OFFICIAL_ANSWERS.read_text(encoding="utf-8")) if OFFICIAL_ANSWERS.is_file() else {}
    num_different = 0
    for name in names:
        spec = DATASETS[name]
        answers = read_answers(spec, folder / "official", data)
        lines = differences(read_answers(spec, folder / "ours", data), answers)
        num_different += bool(lines)
        gap = smallest_gap(folder / "ours" / spec.group.modality, name)
        print(
            f"{name}: {'equal' if not lines else 'different'}; {vector_distances(folder, name)}; smallest gap {gap:.1e}"
        )
        if gap < MIN_GAP:
            print(f"  candidates of a query are nearly tied: draw others, for the gap to be at least {MIN_GAP}")
        for line in lines[:10]:
            print(f"  {line}")
        all_answers[name] = answers
    if write:
        OFFICIAL_ANSWERS.write_text(to_lines(all_answers), encoding="utf-8")
    return int(num_different > 0)


def run_official(out: Path, data: Path, models: Path, names: Iterable[str], official: Path, python: str) -> None:
    """Run the official scripts; end the program if they fail."""
    script = Path(__file__).with_name("run_official_mmeb.py")
    command = [python, str(script), str(official), str(data), str(out), "--datasets", ",".join(names)]
    command += ["--embedder", str(models / "embedding"), "--reranker", str(models / "reranker"), "--topk", str(TOP_K)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the official scripts failed:\n{done.stderr[-4000:]}")


def run_ours(out: Path, data: Path, models: Path, names: Iterable[str]) -> None:
    """Run our evaluation."""
    embedder = Embedder(models / "embedding", device="cpu", dtype="float32")
    reranker = Reranker(models / "reranker", device="cpu", dtype="float32")
    for name in names:
        spec = DATASETS[name]
        files = ResultFiles(out / spec.group.modality, name)
        evaluate_dataset(spec, data, embedder, files)
        if spec.reranked:
            rerank_dataset(spec, data, reranker, files, files, top_k=TOP_K)


def vector_distances(folder: Path, name: str) -> str:
    """Return how far our vectors are from the official ones."""
    modality = DATASETS[name].group.modality
    distances = []
    for side in ("qry", "tgt"):
        official = np.load(folder / "official" / modality / f"{name}_{side}.npy")
        ours = np.load(folder / "ours" / modality / f"{name}_{side}.npz")["vectors"]
        distances.append(float(np.abs(ours - official).max()))
    return f"vectors differ by at most {max(distances):.1e}"


def smallest_gap(folder: Path, name: str) -> float:
    """Return the smallest difference of the similarities of two candidates of a query that have other vectors."""
    queries, candidates = (np.load(folder / f"{name}_{side}.npz")["vectors"] for side in ("qry", "tgt"))
    similarities = np.sort(queries @ np.unique(candidates, axis=0).T, axis=1)
    return float(np.diff(similarities, axis=1).min(initial=np.inf))


def to_lines(answers: dict[str, object]) -> str:
    """Return the answers as JSON with one line for each data set."""
    lines = [f"{json.dumps(name)}: {json.dumps(answers[name], ensure_ascii=False)}" for name in sorted(answers)]
    return "{\n" + ",\n".join(lines) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())

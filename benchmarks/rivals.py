"""The same work by this package and by other implementations, with equal weights and results.

    uv run python -m benchmarks.rivals [--official CHECKOUT] [--vllm PYTHON] [--cases texts …]

`benchmarks/README.md` says how to set up the others. What is not named or not installed is left out.

The models have random weights and the true proportions, and run in float32 on the CPU. Results are compared before
anything is timed: scores may differ by 1e-5, vectors have a cosine of at least 0.99999. Then the implementations take
turns. At the beginning of each turn, our vision feature cache and vLLM's caches are empty.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.models import write
from benchmarks.rival_cases import Bench, Case, Work, embedding_cases, rerank_cases, started_vllm

RERANK_CASES, EMBEDDING_CASES = ("texts", "query", "pictures"), ("embed", "clients", "shown")


def time_call(work: Work) -> float:
    """Return the seconds that the work takes on all inputs.

    Args:
        work: Does the work.

    Returns:
        Seconds.
    """
    began = time.perf_counter()
    work(None)
    return time.perf_counter() - began


def compare(case: Case) -> dict[str, float]:
    """Return the largest difference between our results and those of each of the others.

    Args:
        case: What to run.

    Raises:
        SystemExit: Scores differ by more than 1e-5, or vectors have a cosine below 0.99999.
    """
    case.prepare()
    ours = np.asarray(case.ours(case.compared), dtype=np.float64)
    differences = {}
    for name, work in case.theirs.items():
        theirs = np.asarray(work(case.compared), dtype=np.float64)
        differences[name] = float(np.abs(ours - theirs).max())
        equal = (ours * theirs).sum(1).min() >= 0.99999 if ours.ndim == 2 else differences[name] <= 1e-5
        if not equal:
            raise SystemExit(f"{case.name}: {name} gives other results, by up to {differences[name]:.1e}; not timed")
    return differences


def print_rows(case: Case, turns: int) -> None:
    """Compare results, time all implementations and print a table row for each of the others, if there are any.

    Args:
        case: What to run.
        turns: How often each implementation is timed.
    """
    if not case.theirs:
        return
    differences = compare(case)
    our_times: list[float] = []
    their_times: dict[str, list[float]] = {name: [] for name in case.theirs}
    for _ in range(turns):
        case.prepare()
        our_times.append(time_call(case.ours))
        for name, work in case.theirs.items():
            their_times[name].append(time_call(work))
    for name, seconds in their_times.items():
        ratios = sorted(theirs / ours for theirs, ours in zip(seconds, our_times, strict=True))
        print(
            f"| {case.name} | {name} | {statistics.median(seconds):.2f} | {statistics.median(our_times):.2f} "
            f"| {statistics.median(ratios):.1f} ({ratios[0]:.1f}–{ratios[-1]:.1f}) | {differences[name]:.0e} |",
            flush=True,
        )


def main() -> None:
    """Run the cases that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="folder of the official repository")
    parser.add_argument("--vllm", type=Path, metavar="PYTHON", help="interpreter of an environment with vLLM")
    cases = [*RERANK_CASES, *EMBEDDING_CASES]
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument("--size", default="small")
    parser.add_argument("--texts", type=int, default=1000, help="number of texts to embed")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder that keeps the checkpoints")
    options = parser.parse_args()
    import transformers

    with tempfile.TemporaryDirectory() as scratch:
        models = write(options.models or Path(scratch), options.size)
        bench = Bench(models, Path(scratch), options.cases, options.texts, options.official, options.vllm)
        print(f"torch {torch.__version__}, transformers {transformers.__version__}, {torch.get_num_threads()} threads,")
        print(f"{os.cpu_count()} cores of {platform.processor() or platform.machine()}\n")
        print("| work | against | theirs, s | ours, s | ratio (min–max) | largest difference |")
        print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
        if set(bench.names) & set(RERANK_CASES):
            for case in rerank_cases(bench):
                print_rows(case, options.turns)
        if set(bench.names) & set(EMBEDDING_CASES):
            with started_vllm(bench, "embedding", images=0) as vllm:
                for case in embedding_cases(bench, vllm):
                    print_rows(case, options.turns)


if __name__ == "__main__":
    main()

"""Measures of each query, computed by pytrec_eval: the code of trec_eval itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from qwen3vl.errors import Qwen3VLError
from qwen3vl.evaluation.relevance import find_relevant
from qwen3vl.stores import Hit

Scores = NDArray[np.float64]
"""One measure of each query, (num_queries,) float64 between 0 and 1."""


def measure_names(cutoffs: Sequence[int]) -> list[str]:
    """Return the names of the measures, the main one first.

    Args:
        cutoffs: Numbers of hits that are looked at.

    Returns:
        `ndcg@K` and `mrr@K` for the largest number, `recall@k` for each, and `ndcg@k` for the others.
    """
    largest, *others = sorted(set(cutoffs), reverse=True)
    recalls = [f"recall@{cutoff}" for cutoff in sorted(set(cutoffs))]
    return [f"ndcg@{largest}", f"mrr@{largest}", *recalls, *(f"ndcg@{cutoff}" for cutoff in sorted(others))]


def measure(
    hits: Sequence[Sequence[Hit]], grades: Sequence[Mapping[str, int]], cutoffs: Sequence[int]
) -> dict[str, Scores]:
    """Compute all measures of each query.

    Args:
        hits: The hits of each query, best first.
        grades: For each query, the grades of what is relevant, from `Relevance.grades`.
        cutoffs: Numbers of hits that are looked at.

    Returns:
        The measures by name, in the order of `measure_names`. The gain of nDCG is the grade itself.

    Raises:
        Qwen3VLError: pytrec_eval or scipy is not installed.
    """
    check_installed()
    import pytrec_eval

    largest = max(cutoffs)
    qrels: dict[str, dict[str, int]] = {}
    run: dict[str, dict[str, float]] = {}
    for index, (query_hits, query_grades) in enumerate(zip(hits, grades, strict=True)):
        # Names of our own: trec_eval knows documents by strings of C, and orders equal scores by them.
        names = {name: f"relevant-{number}" for number, name in enumerate(query_grades)}
        found = find_relevant(query_hits[:largest], query_grades)
        ranking = [f"other-{rank}" if name is None else names[name] for rank, name in enumerate(found)]
        qrels[str(index)] = {names[name]: grade for name, grade in query_grades.items()}
        # A query without hits must have a run all the same, or trec_eval leaves it out.
        run[str(index)] = {name: float(len(ranking) - rank) for rank, name in enumerate(ranking)} or {"none": 0.0}
    cuts = ",".join(map(str, sorted(set(cutoffs))))
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"recall.{cuts}", f"ndcg_cut.{cuts}", "recip_rank"})
    values = evaluator.evaluate(run)
    return {
        name: np.array([values[str(index)][_trec_name(name)] for index in range(len(hits))], dtype=np.float64)
        for name in measure_names(cutoffs)
    }


def _trec_name(name: str) -> str:
    measure_name, _, cutoff = name.partition("@")
    return "recip_rank" if measure_name == "mrr" else f"{measure_name.replace('ndcg', 'ndcg_cut')}_{cutoff}"


def check_installed() -> None:
    """Check that the packages of the extra `eval` are installed, before there is work that would be lost without them.

    Raises:
        Qwen3VLError: One of them is not.
    """
    for module, package in (("pytrec_eval", "pytrec-eval-terrier"), ("scipy.special", "scipy")):
        try:
            import_module(module)
        except ImportError as error:
            raise Qwen3VLError(
                f"an evaluation needs {package}, which is not installed; at the root of a clone of the repository "
                'run: pip install ".[eval]"'
            ) from error

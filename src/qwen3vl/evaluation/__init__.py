"""Evaluation of searches on one's own data: queries with known answers, measures, and comparisons of settings."""

from qwen3vl.evaluation.evaluation import DEFAULT_CUTOFFS, Evaluation, SettingResult, check_evaluation, evaluate
from qwen3vl.evaluation.queries import EvalQuery, read_queries
from qwen3vl.evaluation.relevance import Relevance, find_relevant, resolve_relevance
from qwen3vl.evaluation.settings import Setting, grid
from qwen3vl.evaluation.statistics import bootstrap_interval, randomization_test

__all__ = [
    "DEFAULT_CUTOFFS",
    "EvalQuery",
    "Evaluation",
    "Relevance",
    "Setting",
    "SettingResult",
    "bootstrap_interval",
    "check_evaluation",
    "evaluate",
    "find_relevant",
    "grid",
    "randomization_test",
    "read_queries",
    "resolve_relevance",
]

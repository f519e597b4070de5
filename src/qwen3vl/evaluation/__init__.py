"""Evaluation of searches on one's own data: queries with known answers, measures, and comparisons of settings."""

from qwen3vl.evaluation.queries import EvalQuery, read_queries
from qwen3vl.evaluation.relevance import Relevance, find_relevant, resolve_relevance

__all__ = ["EvalQuery", "Relevance", "find_relevant", "read_queries", "resolve_relevance"]

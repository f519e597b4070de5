"""The official measures, where the official answers do not reach: their edge cases."""

from __future__ import annotations

from math import log2

import pytest

from qwen3vl.evaluation.mmeb_v2.metrics import CUTOFFS, Prediction, measure

NAMES = ("hit", "ndcg_linear", "ndcg_exponential", "precision", "recall", "f1", "map", "mrr")


def test_names_are_in_the_official_order() -> None:
    assert list(measure([])) == [f"{name}@{cutoff}" for name in NAMES for cutoff in CUTOFFS]
    assert set(measure([]).values()) == {0.0}


def test_several_labels() -> None:
    scores = measure([Prediction([7, 1, 8, 2, 9, 3], [1, 2, 3, 4])])
    assert scores["hit@1"] == 0
    assert scores["precision@5"] == pytest.approx(2 / 5)
    assert scores["recall@5"] == pytest.approx(2 / 4)
    assert scores["f1@5"] == pytest.approx(2 * 0.4 * 0.5 / 0.9)
    assert scores["map@5"] == pytest.approx((1 / 2 + 2 / 4) / 4)
    assert scores["mrr@10"] == pytest.approx(1 / 2)
    ideal = sum(1 / log2(rank + 1) for rank in range(1, 5))
    assert scores["ndcg_linear@5"] == pytest.approx((1 / log2(3) + 1 / log2(5)) / ideal)


def test_grades_of_texts() -> None:
    scores = measure([Prediction(["c", "a", "x"], ["a", "c"], [2, 1])])
    assert scores["ndcg_linear@5"] == pytest.approx((1 + 2 / log2(3)) / (2 + 1 / log2(3)))
    assert scores["ndcg_exponential@5"] == pytest.approx((1 + 3 / log2(3)) / (3 + 1 / log2(3)))


def test_grades_of_numbers_go_to_labels_in_the_order_of_a_set() -> None:
    # The official code gives 2 to page 1 and 1 to page 5, since {5, 1} is listed as 1, 5.
    scores = measure([Prediction([5, 1, 0], [5, 1], [2, 1])])
    assert scores["ndcg_linear@5"] == pytest.approx((1 + 2 / log2(3)) / (2 + 1 / log2(3)))


def test_a_name_that_is_there_twice() -> None:
    scores = measure([Prediction(["a", "a", "b"], ["a"])])
    assert scores["precision@5"] == pytest.approx(1 / 5)
    assert scores["map@5"] == pytest.approx(2.0)
    assert scores["ndcg_linear@5"] == pytest.approx(1 + 1 / log2(3))


def test_a_label_that_is_no_candidate() -> None:
    scores = measure([Prediction(["a"], ["b"]), Prediction([], ["b"])])
    assert {name for name, value in scores.items() if value} == set()


def test_no_labels() -> None:
    scores = measure([Prediction(["a"], [])])
    assert {name for name, value in scores.items() if value} == {f"recall@{cutoff}" for cutoff in CUTOFFS}

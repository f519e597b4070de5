"""Measures, statistics and searches of an evaluation, compared with computations of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import log2
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from qwen3vl import Document, Embedder, InputError, Loader, Reranker, Retriever, Store, copy_store, ingest, open_store
from qwen3vl.demo.library import write_clip, write_slides
from qwen3vl.demo.scenes import Scene
from qwen3vl.evaluation import (
    EvalQuery,
    Evaluation,
    Setting,
    bootstrap_interval,
    evaluate,
    grid,
    randomization_test,
)
from qwen3vl.evaluation.measures import measure
from qwen3vl.evaluation.searcher import Searcher
from qwen3vl.stores import Hit, Mode
from tests.support.sample_library import MOVER, SLIDE, STAR

CUTOFFS = (1, 3, 10)


@pytest.fixture(scope="module")
def stores(library_folder: Path, tiny_embedder: Embedder) -> Iterator[dict[str, Store]]:
    """The sample library with words, and a copy with short and quantized vectors."""
    library = open_store(":memory:", layout={"hybrid": True})
    ingest(Loader().load([library_folder]), tiny_embedder, library)
    small = open_store(":memory:", "small", layout={"short": 16, "quantization": "binary"})
    copy_store(library, small)
    yield {"library": library, "small": small}
    library.close()
    small.close()


@pytest.fixture(scope="module")
def queries(library_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[EvalQuery]:
    folder = tmp_path_factory.mktemp("queries")
    sketch = folder / "sketch.png"
    random = Random(3)
    Scene(STAR.things, 2).draw(random).save(sketch)
    write_clip(folder / "clip.mp4", MOVER, random)
    write_slides(folder / "slide.pdf", [SLIDE], random)
    return [
        EvalQuery("star", {"text": STAR.caption()}, {"star.png": 1}, ("picture",)),
        EvalQuery("star by picture", {"image": str(sketch)}, {"star.png": 2, "0.png": 1}, ("picture",)),
        EvalQuery("by both", {"image": str(sketch), "text": "a blue ring"}, {"star.png": 1, "3.png": 1}),
        EvalQuery("mover", {"text": MOVER.caption()}, {"mover.mp4": 1}, ("clip", "page")),
        EvalQuery("mover by video", {"video": str(folder / "clip.mp4")}, {"mover.mp4": 1}),
        EvalQuery("slide", {"text": SLIDE.caption()}, {"slides.pdf#page=2": 2, "slides.pdf": 1}),
        EvalQuery("note", {"text": "a purple triangle"}, {"notes.md": 1}),
        EvalQuery("note by picture", {"image": str(folder / "slide.pdf#page=1")}, {"notes.md": 1, "slides.pdf": 3}),
    ]


def expected_measures(hits: Sequence[Hit], grades: dict[str, int], cutoffs: Sequence[int]) -> dict[str, float]:
    """Measures by their definitions, from what each hit's names are worth."""
    remaining = dict(grades)
    gains = []
    for hit in hits:
        names = (hit.id, f"{hit.document.source}#{hit.document.locator}", hit.document.source)
        worth = [(remaining[name], -order, name) for order, name in enumerate(names) if name in remaining]
        gains.append(remaining.pop(max(worth)[2]) if worth else 0)
    ideal = sorted(grades.values(), reverse=True)
    first = next((rank for rank, gain in enumerate(gains[: max(cutoffs)], start=1) if gain), None)
    values = {f"mrr@{max(cutoffs)}": 0.0 if first is None else 1 / first}
    for cutoff in cutoffs:
        values[f"recall@{cutoff}"] = sum(gain > 0 for gain in gains[:cutoff]) / len(grades)
        dcg, best = (sum(gain / log2(rank + 2) for rank, gain in enumerate(each[:cutoff])) for each in (gains, ideal))
        values[f"ndcg@{cutoff}"] = dcg / best
    return values


def run(queries: list[EvalQuery], stores: dict[str, Store], settings: list[Setting], *models: Any) -> Evaluation:
    return evaluate(queries, stores, settings, *models, cutoffs=CUTOFFS)


@pytest.fixture(scope="module")
def evaluation(
    queries: list[EvalQuery], stores: dict[str, Store], tiny_embedder: Embedder, tiny_reranker: Reranker
) -> Evaluation:
    settings = grid(["library"], ["dense", "text", "hybrid"], instructions=[None, "Find it."])
    settings += grid(["small"], exact=True, dimensions=[8])
    settings += grid(["library"], candidates=[12], rerank_instructions=["Find it."])
    return run(queries, stores, settings, tiny_embedder, tiny_reranker)


def test_every_measure_equals_its_definition(evaluation: Evaluation) -> None:
    assert evaluation.measures == ["ndcg@10", "mrr@10", "recall@1", "recall@3", "recall@10", "ndcg@1", "ndcg@3"]
    for result in evaluation.results:
        for index, hits in enumerate(result.hits):
            expected = expected_measures(hits, dict(evaluation.relevance.grades[index]), CUTOFFS)
            for name, value in expected.items():
                assert result.scores[name][index] == pytest.approx(value, abs=1e-9), (result.setting, index, name)


def test_measures_of_random_rankings_equal_their_definitions() -> None:
    random = Random(6)
    sources = [f"{number}.pdf" for number in range(12)]
    seen: set[float] = set()
    for number in range(100):
        pages = [
            Document(random.choice(sources), "page", locator=f"page={page}") for page in range(random.randrange(15))
        ]
        hits = [Hit(f"{number}-{rank}", page, 0.0) for rank, page in enumerate(pages)]
        names = [*random.sample(sources, 3), *(page.name for page in pages[:1]), *(hit.id for hit in hits[4:5])]
        grades = {name: random.randint(1, 3) for name in random.sample(names, random.randint(1, len(names)))}
        measured = {name: float(scores[0]) for name, scores in measure([hits], [grades], CUTOFFS).items()}
        assert measured == pytest.approx(expected_measures(hits, grades, CUTOFFS), abs=1e-6), number
        seen.update(round(value, 3) for value in measured.values())
    assert len(seen) > 50


def test_hits_are_those_of_a_retriever(
    evaluation: Evaluation, stores: dict[str, Store], tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    for result in evaluation.results:
        setting = result.setting
        if setting.dimensions is not None:
            continue
        retriever = Retriever(
            tiny_embedder,
            stores[setting.store],
            None if setting.candidates is None else tiny_reranker,
            candidates=setting.candidates or 0,
            instruction=setting.instruction,
            rerank_instruction=setting.rerank_instruction,
        )
        for query, hits in zip(evaluation.queries, result.hits, strict=True):
            mode = setting.mode if "text" in query.input else "dense"
            if setting.mode == "text" and mode == "dense":
                assert hits == []
                continue
            where = {"kind": list(query.kinds)} if query.kinds else None
            expected = retriever.search(query.input, 10, where=where, mode=mode, exact=setting.exact)
            assert [hit.id for hit in hits] == [hit.id for hit in expected], (setting.name, query.id)
            assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
            scores, others = ([hit.rerank_score or 0.0 for hit in each] for each in (hits, expected))
            assert scores == pytest.approx(others, abs=1e-5)


def test_fewer_dimensions_are_those_of_an_embedder_with_as_many(
    library_folder: Path, queries: list[EvalQuery], stores: dict[str, Store], tiny_embedder: Embedder
) -> None:
    short = Embedder("tiny", device="cpu", dimensions=24)
    expected = open_store(":memory:")
    ingest(Loader().load([library_folder]), short, expected)
    searcher = Searcher(queries, stores, tiny_embedder, limit=6)
    for query, hits in zip(queries, searcher.search(Setting("small", dimensions=24)), strict=True):
        where = {"kind": list(query.kinds)} if query.kinds else None
        others = Retriever(short, expected).search(query.input, 6, where=where)
        assert [hit.document for hit in hits] == [hit.document for hit in others]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in others], abs=1e-5)
    expected.close()


def test_each_query_is_embedded_once_and_each_pair_reranked_once(
    queries: list[EvalQuery], stores: dict[str, Store], tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    searcher = Searcher(queries, stores, tiny_embedder, tiny_reranker)
    embedded, scored = (model.engine.stats.items for model in (tiny_embedder, tiny_reranker))
    hits = searcher.search(Setting("library", candidates=12))
    first = tiny_reranker.engine.stats.items - scored
    for setting in grid(["library", "small"], ["dense"], exact=True, dimensions=[64], candidates=[None]):
        searcher.search(setting)
    assert tiny_embedder.engine.stats.items - embedded == len(queries)
    assert searcher.search(Setting("library", exact=True, candidates=12)) == hits
    assert tiny_reranker.engine.stats.items - scored == first


def test_queries_that_cannot_be_used_are_in_no_result(
    queries: list[EvalQuery], stores: dict[str, Store], tiny_embedder: Embedder, tmp_path: Path
) -> None:
    broken = EvalQuery("broken", {"image": str(tmp_path / "gone.png"), "text": "a ring"}, {"star.png": 1})
    evaluation = run([broken, *queries[:2]], stores, grid(["library"], ["text", "dense"]), tiny_embedder)
    assert list(evaluation.failed) == ["broken"]
    assert "gone.png" in evaluation.failed["broken"]
    assert [query.id for query in evaluation.queries] == ["star", "star by picture"]
    assert [len(result.hits) for result in evaluation.results] == [2, 2]
    with pytest.raises(InputError, match=r"no query can be used; the first is 'broken'"):
        run([broken], stores, grid(["library"]), tiny_embedder)


def test_settings_that_do_not_fit_are_errors(
    queries: list[EvalQuery], stores: dict[str, Store], tiny_embedder: Embedder
) -> None:
    for settings, reason in (
        ([], "at least one setting"),
        ([Setting("other")], "there is no store 'other'; there are library, small"),
        ([Setting("library", dimensions=129)], "dimensions is 129, and the store's vectors have 128"),
        ([Setting("library", candidates=20)], "needs a reranker"),
    ):
        with pytest.raises(ValueError, match=reason):
            run(queries, stores, settings, tiny_embedder)
    with pytest.raises(ValueError, match="5 candidates of the reranker are less than the 10 hits"):
        run(queries, stores, [Setting("library", candidates=5)], tiny_embedder, object())
    with pytest.raises(ValueError, match="mode 'dense' only"):
        Setting("library", mode="hybrid", dimensions=8)


def test_queries_that_cannot_be_measured_are_errors(
    queries: list[EvalQuery], stores: dict[str, Store], tiny_embedder: Embedder
) -> None:
    nothing, irrelevant = EvalQuery("a", {"text": "a ring"}, {}), EvalQuery("b", {"text": "a ring"}, {"star.png": 0})
    for wrong, reason in (
        ([], "there is no query"),
        ([*queries, nothing], "'a' has no relevant document"),
        ([irrelevant], "'b' has no relevant document"),
        ([*queries, queries[0]], "two queries with the id 'star'"),
    ):
        with pytest.raises(InputError, match=reason):
            run(wrong, stores, grid(["library"]), tiny_embedder)


def test_documents_that_cannot_be_reranked_are_named(
    tmp_path: Path, tiny_embedder: Embedder, tiny_reranker: Reranker
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Scene(STAR.things, number).draw(Random(number)).save(path)
    store = open_store(":memory:")
    ingest([Document(str(path), "picture", image=str(path)) for path in paths], tiny_embedder, store)
    query = EvalQuery("star", {"text": STAR.caption()}, {"1.png": 1})
    settings = grid(["library"], candidates=[None, 10])
    assert not run([query], {"library": store}, settings, tiny_embedder, tiny_reranker).unscored
    paths[1].unlink()
    evaluation = run([query], {"library": store}, settings, tiny_embedder, tiny_reranker)
    assert evaluation.unscored == {str(paths[1]): "the file does not exist; check its path"}
    assert evaluation.to_dict()["unscored"] == evaluation.unscored
    assert evaluation.results[1].hits[0][-1].document.source == str(paths[1])
    store.close()


def test_grid_has_each_combination_once() -> None:
    settings = grid(
        ["a", "b"], ["dense", "text"], exact=True, dimensions=[8], candidates=[None, 20], instructions=["x"]
    )
    assert len(settings) == len({setting.name for setting in settings}) == 2 * (2 * 3 + 1)
    assert settings[0].name == "a: dense, “x”"
    assert settings[-1].name == "a: dense, 8 values, “x”, reranked 20"
    assert not any(setting.instruction for setting in settings if setting.mode == "text")


@pytest.mark.parametrize("mode", ["dense", "text", "hybrid"])
def test_dimensions_are_compared_whatever_the_modes_are(mode: Mode) -> None:
    assert [setting.name for setting in grid(["a"], [mode], dimensions=[8])] == [f"a: {mode}", "a: dense, 8 values"]


def test_groups_have_the_queries_of_a_kind(evaluation: Evaluation) -> None:
    groups = dict(evaluation.groups())
    assert list(groups) == [
        *("all", "query: image", "query: text", "query: text + image", "query: video"),
        *("document: clip", "document: page", "document: page + text", "document: picture", "document: text"),
    ]
    assert groups["document: picture"] == [0, 1, 2]
    assert groups["query: video"] == [4]
    summary = evaluation.to_dict()
    assert summary["groups"]["query: text"] == 4
    dense, *_, last = summary["settings"]
    figures = dense["groups"]["document: picture"]["ndcg@10"]
    scores = evaluation.results[0].scores["ndcg@10"][[0, 1, 2]]
    assert figures["mean"] == pytest.approx(scores.mean())
    assert figures["low"] <= figures["mean"] <= figures["high"]
    assert figures["p"] is None
    assert 0 < last["groups"]["all"]["mrr@10"]["p"] <= 1
    worst = evaluation.worst(evaluation.results[1], 3)
    mode_text = evaluation.results[1].scores["ndcg@10"]
    assert mode_text[worst].tolist() == sorted(mode_text)[:3]


def test_p_values_are_those_of_all_swaps() -> None:
    random = np.random.default_rng(4)
    first, second = random.random((2, 10))
    differences = second - first
    swaps = np.array(list(product((-1, 1), repeat=10))) @ differences
    exact = (np.abs(swaps) >= abs(differences.sum()) - 1e-9).mean()
    assert 0.05 < exact < 0.95
    assert randomization_test(first, second) == pytest.approx(exact, abs=0.02)
    assert randomization_test(first, first) == 1
    assert randomization_test(np.zeros(40), np.ones(40)) == pytest.approx(1 / 10_001)
    both = randomization_test(np.stack([first, first]), np.stack([second, first]))
    assert both.tolist() == [float(randomization_test(first, second)), 1.0]


def test_intervals_are_those_of_resampled_means() -> None:
    random = np.random.default_rng(5)
    scores = random.random(60)
    low, high = bootstrap_interval(scores)
    resampled = scores[random.integers(0, 60, (20_000, 60))].mean(axis=1)
    assert (low, high) == pytest.approx(np.quantile(resampled, [0.0218, 0.9782]), abs=0.01)  # of Student's t
    assert bootstrap_interval(scores) == (low, high)
    assert bootstrap_interval(scores, seed=1) != (low, high)
    narrow_low, narrow_high = bootstrap_interval(scores, confidence=0.5)
    assert low < narrow_low < narrow_high < high


@pytest.mark.parametrize(("count", "share"), [(5, 0.9), (10, 0.93)])
def test_intervals_of_few_queries_have_the_mean_in_them(count: int, share: float) -> None:
    """The plain percentile interval has it in 84 and 91 % of the cases."""
    samples = np.random.default_rng(8).beta(2, 1, (1000, count))
    low, high = bootstrap_interval(samples)
    assert ((low <= 2 / 3) & (high >= 2 / 3)).mean() >= share
    assert tuple(map(float, bootstrap_interval(np.array([0.5])))) == (0.5, 0.5)

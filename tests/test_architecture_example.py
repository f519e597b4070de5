"""The worked example of docs/architecture.md is what the engine does."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from qwen3vl import Reranker
from qwen3vl.demo.scenes import Scene, Thing
from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.inputs import as_item
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.templates import rerank_prompt

QUERIES = ["a red circle in the centre", "a blue star on the left"]
PAGE = (Path(__file__).parent.parent / "docs" / "architecture.md").read_text(encoding="utf-8")


def documents() -> list[Any]:
    drawing = Scene((Thing("red", "circle", 4),)).draw(Random(0))
    return [*QUERIES, {"image": drawing}]


def cells(*values: Any) -> str:
    return ", ".join(str(value) for value in values)


@pytest.fixture(scope="module")
def pack(tiny_reranker: Reranker) -> Pack:
    engine = tiny_reranker.engine
    prompts = []
    for query in QUERIES:
        content = engine.read_headers(as_item(query))
        for document in documents():
            parts = rerank_prompt(content, engine.read_headers(as_item(document)), tiny_reranker.instruction)
            prompts.append(fit(parts, engine.tokenizer, engine.limits.max_length).prompt)
    assert "75, 75, 80, 75, 75 and 80 tokens, 460 in all" in PAGE
    assert [len(prompt) for prompt in prompts] == [75, 75, 80, 75, 75, 80]
    (pack,) = pack_prompts(prompts, 1 << 30)
    return pack


def test_segments_are_those_of_the_page(pack: Pack) -> None:
    assert f"one row of {pack.num_tokens} tokens instead of 460" in PAGE
    start = 0
    for number, length in enumerate(pack.layout.segment_lengths):
        (prompt,) = [p for p in range(6) if start <= pack.output_indices[pack.prompt_indices.index(p)] < start + length]
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {number} | "))
        assert row.startswith(f"| {number} | {start} to {start + length - 1} | {length} | ")
        assert row.endswith(f" | {prompt} |")
        start += length


def test_prefix_links_are_those_of_the_page(pack: Pack) -> None:
    for link in pack.layout.links:
        queries, keys = f"{link.query_start} to {link.query_stop - 1}", f"{link.key_start} to {link.key_stop - 1}"
        assert any(
            line.startswith(f"| {link.level} | {queries} (") and f" | {keys} | " in line for line in PAGE.splitlines()
        )


def test_cu_seqlens_are_those_of_the_page(pack: Pack) -> None:
    assert f"| segments | {cells(0, *accumulate(pack.layout.segment_lengths))} |" in PAGE
    for level in (0, 1):
        links = [link for link in pack.layout.links if link.level == level]
        queries = cells(0, *accumulate(link.query_stop - link.query_start for link in links))
        keys = cells(0, *accumulate(link.key_stop - link.key_start for link in links))
        assert f"| level {level} | {queries} | {keys} | no |" in PAGE


def test_output_and_vision_rows_are_those_of_the_page(pack: Pack) -> None:
    rows = [int(pack.output_indices[pack.prompt_indices.index(prompt)]) for prompt in range(6)]
    assert f"at rows {cells(*rows[:-1])} and {rows[-1]}" in PAGE
    assert pack.vision_token_indices.tolist() == [*range(95, 104), *range(121, 130)]
    assert pack.vision_feature_indices.tolist() == [*range(9), *range(9)]
    assert "at rows 95 to 103 and 121 to 129" in PAGE


def test_scores_are_those_of_the_page(tiny_reranker: Reranker) -> None:
    for query in QUERIES:
        scores = tiny_reranker.score(query, documents())
        assert f"| {query} | " + " | ".join(f"{score:.3f}" for score in np.asarray(scores)) + " |" in PAGE

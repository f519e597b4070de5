"""The engine gives the official implementation's token ids, vectors and scores, on every path through it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from qwen3vl import BatchError, Embedder, Reranker
from qwen3vl.inputs import as_item
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.templates import (
    EMBED_INSTRUCTION,
    RERANK_INSTRUCTION,
    embed_prompt,
    normalize_instruction,
    rerank_prompt,
)
from tests.conftest import CASES, REFERENCE, resolve

EMBED, RERANK = list(CASES["embed"]), list(CASES["rerank"])


def expected_vector(name: str) -> Any:
    vector = np.array(REFERENCE["embed"][name]["vector"])
    return vector / np.linalg.norm(vector)


def check(name: str, vector: Any) -> None:
    """Compare with the reference; video files go through another decoder than there, so less is required of them."""
    min_cosine = 0.999 if isinstance(CASES["embed"][name].get("video"), str) else 0.99999
    assert vector.dtype == np.float32
    assert float(vector @ expected_vector(name)) >= min_cosine, name


@pytest.mark.parametrize("name", EMBED)
def test_token_ids_and_grids_equal_the_reference(name: str, golden_embedder: Embedder, media: dict[str, Path]) -> None:
    case = resolve(CASES["embed"][name], media)
    engine = golden_embedder.engine
    item = as_item(case)
    instruction = normalize_instruction(item.instruction or "") or EMBED_INSTRUCTION
    fitted = fit(embed_prompt(engine.read_headers(item), instruction), engine.tokenizer, 8192)
    reference = REFERENCE["embed"][name]
    assert fitted.prompt.ids.tolist() == [token for token, count in reference["ids"] for _ in range(count)]
    grids = [list(sized.vision.grid) for sized in fitted.media]
    assert sorted(grids) == sorted(grid for grids_of_kind in reference["grid"] for grid in grids_of_kind)


@pytest.mark.parametrize("name", RERANK)
def test_rerank_prompt_equals_the_reference(name: str, golden_reranker: Reranker, media: dict[str, Path]) -> None:
    """The reference is the prompt's text before media are expanded, tokenized with control tokens."""
    case = CASES["rerank"][name]
    query, document = (as_item(resolve(value, media)) for value in (case["query"], case["documents"][0]))
    engine = golden_reranker.engine
    parts = rerank_prompt(
        engine.read_headers(query), engine.read_headers(document), case.get("instruction") or RERANK_INSTRUCTION
    )
    fitted = fit(parts, engine.tokenizer, 10245)
    from tokenizers import Tokenizer

    plain = Tokenizer.from_file(str(engine.checkpoint.folder / "tokenizer.json"))
    text = REFERENCE["rerank"][name]["first_prompt"]
    ids = plain.encode(text, add_special_tokens=False).ids
    pads = {plain.token_to_id("<|image_pad|>"), plain.token_to_id("<|video_pad|>")}
    if "<|video_pad|>" not in text:  # a video's prompt has timestamps and more tokens
        prompt_ids = fitted.prompt.ids.tolist()
        unrepeated = [
            token for index, token in enumerate(prompt_ids) if not (token in pads and prompt_ids[index - 1] == token)
        ]
        assert unrepeated == ids
    else:
        assert fitted.prompt.ids[-8:].tolist() == ids[-8:]


@pytest.mark.parametrize("name", EMBED)
def test_vector_of_an_item_alone(name: str, golden_embedder: Embedder, media: dict[str, Path]) -> None:
    check(name, golden_embedder.embed(resolve(CASES["embed"][name], media))[0])


def test_vectors_of_one_batch(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    vectors = golden_embedder.embed([resolve(CASES["embed"][name], media) for name in EMBED])
    for name, vector in zip(EMBED, vectors, strict=True):
        check(name, vector)


@pytest.mark.parametrize(("seed", "budget"), [(1, 200), (2, 700), (3, 3000), (4, 1 << 30)])
def test_vectors_in_any_order_and_token_budget(
    seed: int, budget: int, checkpoints: Path, media: dict[str, Path]
) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu", batch_tokens=budget)
    names = Random(seed).sample(EMBED, len(EMBED))
    vectors = embedder.embed([resolve(CASES["embed"][name], media) for name in names])
    for name, vector in zip(names, vectors, strict=True):
        check(name, vector)


def test_vectors_beside_failing_items(golden_embedder: Embedder, media: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(media["photo"].read_bytes()[:2000])  # a good header, no pixels
    inputs: list[Any] = [resolve(CASES["embed"][name], media) for name in EMBED]
    inputs.insert(3, {"image": broken})
    inputs.insert(9, {"image": tmp_path / "missing.png"})
    with pytest.raises(BatchError) as caught:
        golden_embedder.embed(inputs)
    assert [error.index for error in caught.value.errors] == [3, 9]
    for name, vector in zip(EMBED, np.delete(caught.value.results, [3, 9], axis=0), strict=True):
        check(name, vector)


@pytest.mark.parametrize("name", RERANK)
@pytest.mark.parametrize("budget", [None, 64])
def test_scores_in_both_orders_and_alone(
    name: str, budget: int | None, checkpoints: Path, media: dict[str, Path]
) -> None:
    case = CASES["rerank"][name]
    reranker = Reranker(checkpoints / case.get("checkpoint", "reranker"), device="cpu", batch_tokens=budget)
    documents = [resolve(document, media) for document in case["documents"]]
    query, instruction = resolve(case["query"], media), case.get("instruction")
    expected = np.array(REFERENCE["rerank"][name]["scores"])
    scores = reranker.score(query, documents, instruction=instruction)
    np.testing.assert_allclose(scores, expected, atol=1e-5, rtol=0)
    backwards = reranker.score(query, documents[::-1], instruction=instruction)
    np.testing.assert_allclose(backwards, expected[::-1], atol=1e-5, rtol=0)
    alone = [reranker.score(query, [document], instruction=instruction)[0] for document in documents]
    np.testing.assert_allclose(alone, expected, atol=1e-5, rtol=0)


def test_rank_sorts_by_score(golden_reranker: Reranker, media: dict[str, Path]) -> None:
    case = CASES["rerank"]["text-query-mixed-documents"]
    documents = [resolve(document, media) for document in case["documents"]]
    ranked = golden_reranker.rank(case["query"], documents, instruction=case["instruction"], top_n=3)
    expected = np.array(REFERENCE["rerank"]["text-query-mixed-documents"]["scores"])
    assert [index for index, _ in ranked] == np.argsort(-expected)[:3].tolist()

"""Packs of any shape give what each prompt gives alone, and contain no token twice."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.engine.packing import Pack, pack_prompts
from qwen3vl.engine.prefix_tree import PrefixTree, Segment, shared_prefix_length
from qwen3vl.model import AttentionLayout, PrefixLink, Qwen3VL
from qwen3vl.model.weights import load_model
from qwen3vl.processing.encoded_prompt import EncodedPrompt, VisionSpan
from tests.support.packed_prompts import IMAGE_TOKENS, UNLIMITED, encode, prompts


@pytest.fixture(scope="module")
def model(checkpoints: Path) -> Qwen3VL:
    return load_model(checkpoints / "embedding", torch.device("cpu"), torch.float32)


def forward(model: Qwen3VL, pack: Pack) -> dict[int, torch.Tensor]:
    """Return the hidden state of each prompt's last token, with random patches that depend on the image's name."""
    features = None
    if pack.media_keys:
        patches = [
            torch.rand((24, 1536), generator=torch.Generator().manual_seed(ord(str(key)))) for key in pack.media_keys
        ]
        encoded = model.encode_vision(torch.cat(patches), pack.grids)
        features = encoded.take(torch.from_numpy(pack.vision_feature_indices))
    with torch.inference_mode():
        states = model(
            torch.from_numpy(pack.input_ids),
            torch.from_numpy(pack.position_ids),
            pack.layout,
            torch.from_numpy(pack.output_indices),
            torch.from_numpy(pack.vision_token_indices),
            features,
        )
    return dict(zip(pack.prompt_indices, states, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=7), st.sampled_from([1, 60, UNLIMITED]))
def test_packed_states_equal_those_of_single_prompts(
    model: Qwen3VL, drawn: list[EncodedPrompt], max_tokens: int
) -> None:
    states: dict[int, torch.Tensor] = {}
    for pack in pack_prompts(drawn, max_tokens):
        states |= forward(model, pack)
    assert sorted(states) == list(range(len(drawn)))
    for index, prompt in enumerate(drawn):
        (single,) = pack_prompts([prompt], UNLIMITED)
        torch.testing.assert_close(states[index], forward(model, single)[0], atol=2e-5, rtol=1e-4)


def codes(prompt: EncodedPrompt) -> list[Any]:
    """Return the prompt's token ids, with each vision token replaced by its image and its place there."""
    tokens: list[Any] = prompt.ids.tolist()
    for span in prompt.spans:
        tokens[span.start : span.stop] = [(span.key, offset) for offset in range(span.stop - span.start)]
    return tokens


def count_distinct_prefixes(prompts: list[EncodedPrompt]) -> int:
    """Return how many tokens have to be computed at least: those that differ or follow different tokens."""
    prefixes = {tuple(tokens[:stop]) for tokens in map(codes, prompts) for stop in range(1, len(tokens) + 1)}
    return len(prefixes)


@settings(max_examples=300, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=12), st.integers(1, 400))
def test_packs_contain_each_prompt_once_and_each_prefix_once(drawn: list[EncodedPrompt], max_tokens: int) -> None:
    packs = list(pack_prompts(drawn, max_tokens))
    assert sorted(index for pack in packs for index in pack.prompt_indices) == list(range(len(drawn)))
    for pack in packs:
        packed = [drawn[index] for index in pack.prompt_indices]
        assert pack.layout.num_tokens == pack.num_tokens == count_distinct_prefixes(packed)
        assert pack.num_tokens <= max(max_tokens, *map(len, packed))
        assert all(2**link.level < len(packed) for link in pack.layout.links)
        for index, prompt in zip(pack.prompt_indices, packed, strict=True):
            token_indices = pack.token_indices(index)
            np.testing.assert_array_equal(pack.input_ids[token_indices], prompt.ids)
            np.testing.assert_array_equal(pack.position_ids[:, token_indices], prompt.positions)


@settings(max_examples=100, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=12))
def test_each_token_attends_to_its_own_prompt_up_to_itself(drawn: list[EncodedPrompt]) -> None:
    """Segments and links together: once to each of these tokens, and to no other."""
    (pack,) = pack_prompts(drawn, UNLIMITED)
    attended = np.zeros((pack.num_tokens, pack.num_tokens), dtype=int)
    starts = np.cumsum((0, *pack.layout.segment_lengths))
    for start, stop in itertools.pairwise(starts):
        attended[start:stop, start:stop] += np.tri(stop - start, dtype=int)
    for link in pack.layout.links:
        attended[link.query_start : link.query_stop, link.key_start : link.key_stop] += 1
    assert attended.sum() == pack.layout.num_attended_pairs(causal=True)
    for index in pack.prompt_indices:
        token_indices = pack.token_indices(index)
        expected = np.zeros_like(attended)
        expected[np.ix_(token_indices, token_indices)] = np.tri(len(token_indices), dtype=int)
        np.testing.assert_array_equal(attended[token_indices], expected[token_indices])


def test_prefix_tree_of_three_sequences() -> None:
    """The example of the docstring of `PrefixTree`: a b c, a b d e and a b d f."""
    tree = PrefixTree((3, 4, 4), (0, 2, 3))
    assert tree.segments == [Segment(1, 0, 4), Segment(0, 2, 3), Segment(2, 3, 4)]
    assert tree.links == [PrefixLink(0, 4, 5, 0, 2), PrefixLink(0, 5, 6, 0, 3)]
    assert tree.last_token_indices == [4, 3, 5]
    assert tree.num_tokens == 6


def test_chain_of_branches_has_one_level_of_links() -> None:
    """Each sequence shares a little more with the next than with the one before: no recursion, and no nesting."""
    chain = [encode([(100, 10 * number), (1000 + number, 3)]) for number in range(1, 200)]
    (pack,) = pack_prompts(chain, UNLIMITED)
    assert {link.level for link in pack.layout.links} == {0}
    assert pack.num_tokens == count_distinct_prefixes(chain)


def test_shared_prefixes_and_images_are_packed_once() -> None:
    system, query = [(100, 40)], [(300, 20)]
    documents = [encode([*system, *query, "a", (1000 + 100 * number, 5)]) for number in range(50)]
    others = [encode([*system, (2000 + 100 * number, 9)]) for number in range(10)]
    (pack,) = pack_prompts(documents + others, UNLIMITED)
    assert pack.num_tokens == 40 + (20 + IMAGE_TOKENS) + 50 * 5 + 10 * 9
    assert pack.media_keys == ("a",)
    assert len(pack.vision_token_indices) == IMAGE_TOKENS
    assert len(pack.layout.links) == 2


def test_equal_placeholder_ids_of_different_images_are_not_shared() -> None:
    (pack,) = pack_prompts([encode([(100, 20), name, (200, 3)]) for name in ("a", "b")], UNLIMITED)
    assert pack.num_tokens == 20 + 2 * (IMAGE_TOKENS + 3)
    assert pack.layout == AttentionLayout((20 + IMAGE_TOKENS + 3, IMAGE_TOKENS + 3), (PrefixLink(0, 29, 38, 0, 20),))


def test_equal_prompts_are_computed_once() -> None:
    (pack,) = pack_prompts([encode([(100, 20)])] * 3 + [encode([(100, 25)])], UNLIMITED)
    assert pack.num_tokens == 25
    assert pack.output_indices.tolist() == [19, 19, 19, 24]


def test_prefix_of_images_is_shared_only_if_they_are_the_same() -> None:
    ids = np.array([1, 2, 5, 5, 5, 5, 3])

    def prompt(key: str) -> EncodedPrompt:
        return EncodedPrompt(ids, np.zeros((3, 7), np.int64), (VisionSpan(2, 6, key, (1, 4, 4)),))

    assert shared_prefix_length(prompt("a"), prompt("a")) == 7
    assert shared_prefix_length(prompt("a"), prompt("b")) == 2
    assert shared_prefix_length(prompt("a"), EncodedPrompt(ids[:2], np.zeros((3, 2), np.int64))) == 2

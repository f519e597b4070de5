"""Packs of any shape give what each prompt gives alone, and compute nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3vl.model import Group, Qwen3VL, read_config
from qwen3vl.model.weights import load_model
from qwen3vl.packing import MIN_SHARED, Pack, Prompted, Span, plan
from qwen3vl.prompt import mrope_positions

GRID = (1, 4, 6)
TOKENS = 6


def prompted(parts: list[tuple[int, int] | str]) -> Prompted:
    """A prompt of (first id, count) runs and of pictures named by a str."""
    ids: list[int] = []
    spans = []
    for part in parts:
        if isinstance(part, str):
            spans.append(Span(len(ids), len(ids) + TOKENS, part, GRID))
            ids += [7] * TOKENS
        else:
            ids += range(part[0], part[0] + part[1])
    return Prompted(np.array(ids, dtype=np.int64), mrope_positions(len(ids), spans), tuple(spans))


runs = st.tuples(st.sampled_from([100, 200, 300]), st.integers(1, 24))
pictures = st.sampled_from(["a", "b"])
prompts = st.lists(st.one_of(runs, pictures), min_size=1, max_size=4).map(lambda parts: [*parts, (400, 1)])


@pytest.fixture(scope="module")
def model(checkpoints: Path) -> Qwen3VL:
    return load_model(checkpoints / "embedding", torch.device("cpu"), torch.float32)


def forward(model: Qwen3VL, pack: Pack) -> dict[int, torch.Tensor]:
    """The last state of each member, with pixels that depend on the picture's name."""
    features = None
    if pack.media:
        rows = [torch.rand((24, 1536), generator=torch.Generator().manual_seed(ord(str(key)))) for key in pack.media]
        features = model.see(torch.cat(rows), pack.grids).take(torch.from_numpy(pack.rows))
    with torch.inference_mode():
        states = model(
            torch.from_numpy(pack.ids),
            torch.from_numpy(pack.positions),
            pack.groups,
            torch.from_numpy(pack.wanted),
            torch.from_numpy(pack.visual),
            features,
        )
    return dict(zip(pack.members, states, strict=True))


@settings(max_examples=25, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=7), st.sampled_from([1, 60, 1 << 30]))
def test_packed_equals_alone(model: Qwen3VL, drawn: list[Any], budget: int) -> None:
    sequences = [prompted(parts) for parts in drawn]
    found: dict[int, torch.Tensor] = {}
    for pack in plan(sequences, budget):
        found |= forward(model, pack)
    assert sorted(found) == list(range(len(sequences)))
    for index, sequence in enumerate(sequences):
        (alone,) = plan([sequence], 1 << 30)
        torch.testing.assert_close(found[index], forward(model, alone)[0], atol=2e-5, rtol=1e-4)


@settings(max_examples=200, deadline=None)
@given(st.lists(prompts, min_size=1, max_size=12), st.integers(1, 400))
def test_every_sequence_once_and_no_padding(drawn: list[Any], budget: int) -> None:
    sequences = [prompted(parts) for parts in drawn]
    packs = list(plan(sequences, budget))
    assert sorted(member for pack in packs for member in pack.members) == list(range(len(sequences)))
    for pack in packs:
        assert sum(group.count * group.length for group in pack.groups) == pack.tokens
        assert pack.tokens <= max(budget, *(len(sequences[member]) for member in pack.members)) + MIN_SHARED * len(
            pack.members
        )
        for member in pack.members:
            np.testing.assert_array_equal(pack.ids[pack.places(member)], sequences[member].ids)


def test_shared_tokens_stand_once() -> None:
    system, query = [(100, 40)], [(300, 20)]
    family = [prompted([*system, *query, "a", (1000 + 100 * number, 5)]) for number in range(50)]
    others = [prompted([*system, (2000 + 100 * number, 9)]) for number in range(10)]
    (pack,) = plan(family + others, 1 << 30)
    assert pack.tokens == 40 + (20 + TOKENS) + 50 * 5 + 10 * 9
    assert pack.media == ("a",)
    assert len(pack.visual) == TOKENS


def test_equal_pads_of_different_pictures_are_not_shared() -> None:
    (pack,) = plan([prompted([(100, 20), name, (200, 3)]) for name in ("a", "b")], 1 << 30)
    assert pack.tokens == 20 + 2 * (TOKENS + 3)
    assert pack.groups[0] == Group(0, 1, 20)


def test_config_reads_both_transformers_spellings(checkpoints: Path, tmp_path: Path) -> None:
    import json

    raw = json.loads((checkpoints / "embedding" / "config.json").read_text())
    rope = raw["text_config"].pop("rope_scaling")
    raw["text_config"]["rope_parameters"] = {**rope, "rope_theta": raw["text_config"].pop("rope_theta")}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path / "config.json") == read_config(checkpoints / "embedding" / "config.json")

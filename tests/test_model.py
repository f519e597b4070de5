"""The model against transformers' own, and how checkpoints are read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3vl import Embedder, ModelError, Reranker
from qwen3vl.model import AttentionLayout
from qwen3vl.model.hub import FILES, resolve_checkpoint
from qwen3vl.model.weights import load_model


def test_equals_the_installed_transformers(checkpoints: Path) -> None:
    """Runs with every transformers from 4.57.3 on; the weights go through its own loading."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
        checkpoints / "embedding", dtype=torch.float32
    ).eval()
    ours = load_model(checkpoints / "embedding", torch.device("cpu"), torch.float32)
    grids = [(1, 10, 8), (2, 6, 4), (1, 6, 4)]
    patches = torch.randn(sum(t * h * w for t, h, w in grids), 1536)
    ids = torch.randint(0, 150_000, (1, 40))
    positions = torch.randint(0, 60, (3, 1, 40)).sort(-1).values
    with torch.inference_mode():
        features = ours.encode_vision(patches, grids)
        reference = theirs.model.visual(patches, grid_thw=torch.tensor(grids))
        tokens, deepstack = (
            reference if isinstance(reference, tuple) else (reference.pooler_output, reference.deepstack_features)
        )
        torch.testing.assert_close(features.tokens, tokens, atol=1e-4, rtol=1e-4)
        for mine, other in zip(features.deepstack, deepstack, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-4)
        visual = torch.zeros(1, 40, dtype=torch.bool)
        visual[0, 5:17] = True
        embeds = theirs.model.language_model.embed_tokens(ids)
        embeds[visual] = tokens[:12]
        hidden = theirs.model.language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            visual_pos_masks=visual,
            deepstack_visual_embeds=[layer[:12] for layer in deepstack],
        ).last_hidden_state[0]
        states = ours(
            ids[0],
            positions[:, 0],
            AttentionLayout((40,)),
            torch.arange(40),
            torch.arange(5, 17),
            features.take(torch.arange(12)),
        )
    torch.testing.assert_close(states, hidden, atol=1e-4, rtol=1e-4)


@pytest.fixture
def folder(checkpoints: Path, tmp_path: Path) -> Path:
    """A copy of the untied reranker that a test may damage."""
    return Path(shutil.copytree(checkpoints / "reranker-untied", tmp_path / "model"))


def shard(folder: Path) -> None:
    """Splits model.safetensors in two, with the index that the hub's large models have."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards(folder: Path, checkpoints: Path) -> None:
    whole = Reranker(checkpoints / "reranker-untied", device="cpu").score("beach", ["sand", "snow"])
    shard(folder)
    np.testing.assert_array_equal(Reranker(folder, device="cpu").score("beach", ["sand", "snow"]), whole)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="model-00002-of-00002"):
        Reranker(folder, device="cpu")


def test_names_without_the_prefix(folder: Path, checkpoints: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): value for name, value in weights.items()}, folder / "model.safetensors")
    expected = Reranker(checkpoints / "reranker-untied", device="cpu").score("beach", ["sand"])
    np.testing.assert_array_equal(Reranker(folder, device="cpu").score("beach", ["sand"]), expected)


def test_missing_and_unexpected_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    gone = "model.language_model.layers.2.mlp.up_proj.weight"
    kept = {name: value for name, value in weights.items() if name != gone}
    save_file({**kept, "model.extra.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 missing \(language_model.layers.2.*1 unexpected \(extra.weight"):
        Reranker(folder, device="cpu")


def test_wrong_shape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.language_model.norm.weight"] = torch.zeros(5)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"has shape \(5,\); config.json asks for \(96,\)"):
        Reranker(folder, device="cpu")


def test_no_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"no lm_head.weight"):
        Reranker(folder, device="cpu")
    assert Embedder(folder, device="cpu").dimension == 96


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_incomplete_folder(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.split(".")[0]):
        Reranker(folder, device="cpu")


def test_cut_file(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        Reranker(folder, device="cpu")


def test_other_architecture(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(ModelError, match="type 'qwen2_vl'"):
        Reranker(folder, device="cpu")


def test_unknown_model() -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        Embedder("no-such-model")


def test_hub_download_asks_only_for_what_is_read(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub cannot be reached from a test: its client is replaced at the border, by one that copies a folder."""
    commit = "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"
    asked: dict[str, object] = {}

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.update(name=name, revision=revision, patterns=tuple(allow_patterns))
        return str(shutil.copytree(checkpoints / "embedding", tmp_path / commit, dirs_exist_ok=True))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    embedder = Embedder("Qwen/Qwen3-VL-Embedding-2B", revision=commit, device="cpu")
    assert asked == {"name": "Qwen/Qwen3-VL-Embedding-2B", "revision": commit, "patterns": FILES}
    assert embedder.recipe.revision == commit
    monkeypatch.undo()


def test_hub_failure_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError("the network is unreachable")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match="at revision main cannot be had from the model hub: the network"):
        resolve_checkpoint("Qwen/Qwen3-VL-Reranker-8B", "reranker", "main")


def test_objects_of_one_model_share_its_weights(checkpoints: Path, golden_embedder: Embedder) -> None:
    other = Embedder(checkpoints / "embedding", device="cpu", dimensions=8)
    assert other.engine.model is golden_embedder.engine.model


def test_bfloat16_is_near(checkpoints: Path, golden_embedder: Embedder) -> None:
    half = Embedder(checkpoints / "embedding", device="cpu", dtype="bfloat16")
    vector = half.embed("beach")[0]
    assert vector.dtype == np.float32
    assert float(vector @ golden_embedder.embed("beach")[0]) > 0.99

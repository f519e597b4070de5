"""The model equals transformers' own, and checkpoints are read completely or refused with a reason."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3vl import Embedder, ModelError, Reranker
from qwen3vl.model import AttentionLayout
from qwen3vl.model.hub import CHECKPOINT_FILES, resolve_checkpoint
from qwen3vl.model.layers.initialization import Conv3d, Embedding, LayerNorm
from qwen3vl.model.layers.linear import Linear
from qwen3vl.model.weights import load_model
from tests.support.engines import assert_close


def test_model_equals_the_installed_transformers(checkpoints: Path) -> None:
    """Runs with every transformers from 4.57.3 on, which loads the weights by its own code."""
    transformers = pytest.importorskip("transformers")
    reference = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
        checkpoints / "embedding", dtype=torch.float32
    ).eval()
    model = load_model(checkpoints / "embedding", torch.device("cpu"), torch.float32)
    grids = [(1, 10, 8), (2, 6, 4), (1, 6, 4)]
    patches = torch.randn(sum(t * h * w for t, h, w in grids), 1536)
    input_ids = torch.randint(0, 150_000, (1, 40))
    positions = torch.randint(0, 60, (3, 1, 40)).sort(-1).values
    with torch.inference_mode():
        features = model.encode_vision(patches, grids)
        vision_output = reference.model.visual(patches, grid_thw=torch.tensor(grids))
        expected_tokens, expected_deepstack = (
            vision_output
            if isinstance(vision_output, tuple)  # transformers 4.57
            else (vision_output.pooler_output, vision_output.deepstack_features)
        )
        torch.testing.assert_close(features.tokens, expected_tokens, atol=1e-4, rtol=1e-4)
        for actual, expected in zip(features.deepstack, expected_deepstack, strict=True):
            torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
        is_vision_token = torch.zeros(1, 40, dtype=torch.bool)
        is_vision_token[0, 5:17] = True
        inputs_embeds = reference.model.language_model.embed_tokens(input_ids)
        inputs_embeds[is_vision_token] = expected_tokens[:12]
        expected_states = reference.model.language_model(
            inputs_embeds=inputs_embeds,
            position_ids=positions,
            visual_pos_masks=is_vision_token,
            deepstack_visual_embeds=[layer[:12] for layer in expected_deepstack],
        ).last_hidden_state[0]
        states = model(
            input_ids[0],
            positions[:, 0],
            AttentionLayout((40,)),
            torch.arange(40),
            torch.arange(5, 17),
            features.take(torch.arange(12)),
        )
    torch.testing.assert_close(states, expected_states, atol=1e-4, rtol=1e-4)


@pytest.fixture
def folder(checkpoints: Path, tmp_path: Path) -> Path:
    """A copy of the untied reranker that a test may damage."""
    return Path(shutil.copytree(checkpoints / "reranker-untied", tmp_path / "model"))


def split_into_shards(folder: Path) -> None:
    """Replace model.safetensors by two shards and their index, as the hub's large models have."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file_name, shard_names in shards.items():
        save_file({name: weights[name] for name in shard_names}, folder / file_name)
    index = {"weight_map": {name: file_name for file_name, shard_names in shards.items() for name in shard_names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_read_as_one_file_is_and_a_missing_one_is_named(folder: Path, checkpoints: Path) -> None:
    expected = Reranker(checkpoints / "reranker-untied", device="cpu").score("beach", ["sand", "snow"])
    split_into_shards(folder)
    assert_close(Reranker(folder, device="cpu").score("beach", ["sand", "snow"]), expected)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match="it lacks model-00002-of-00002"):
        Reranker(folder, device="cpu")


@pytest.mark.parametrize("with_shards", [True, False])
def test_one_file_is_read_rather_than_an_index_that_is_left(folder: Path, checkpoints: Path, with_shards: bool) -> None:
    """As after saving a model again, as one file, into the folder of its shards: transformers reads that file, too."""
    expected = Reranker(checkpoints / "reranker-untied", device="cpu").score("beach", ["sand", "snow"])
    split_into_shards(folder)
    for shard in folder.glob("model-*.safetensors"):
        if with_shards:
            save_file({name: value * 2 for name, value in load_file(shard).items()}, shard)
        else:
            shard.unlink()
    shutil.copy(checkpoints / "reranker-untied" / "model.safetensors", folder)
    scores = Reranker(folder, device="cpu").score("beach", ["sand", "snow"])
    np.testing.assert_array_equal(scores, expected)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_damaged_index_of_shards_is_a_model_error(folder: Path, text: str) -> None:
    split_into_shards(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"index.json is damaged: .*Download it again"):
        Reranker(folder, device="cpu")


@pytest.mark.parametrize("name", ["model.language_model.norm.weight", "lm_head.weight"])
def test_shard_without_a_tensor_that_the_index_names_is_a_model_error(folder: Path, name: str) -> None:
    """As after a download of two versions of a model."""
    split_into_shards(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text(encoding="utf-8"))
    shard = folder / index["weight_map"][name]
    weights = load_file(shard)
    weights.pop(name)
    save_file(weights, shard)
    with pytest.raises(ModelError, match=rf"{shard.name} is damaged or incomplete: .*{name}.*Download it again"):
        Reranker(folder, device="cpu")


def test_tensor_names_without_the_published_prefix_are_read(folder: Path, checkpoints: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({name.removeprefix("model."): value for name, value in weights.items()}, folder / "model.safetensors")
    expected = Reranker(checkpoints / "reranker-untied", device="cpu").score("beach", ["sand"])
    np.testing.assert_array_equal(Reranker(folder, device="cpu").score("beach", ["sand"]), expected)


def test_missing_and_unexpected_tensors_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    missing = "model.language_model.layers.2.mlp.up_proj.weight"
    remaining = {name: value for name, value in weights.items() if name != missing}
    save_file({**remaining, "model.extra.weight": torch.zeros(3)}, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 missing \(language_model.layers.2.*1 unexpected \(extra.weight"):
        Reranker(folder, device="cpu")


def test_tensor_of_another_shape_is_a_model_error(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.language_model.norm.weight"] = torch.zeros(5)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"has shape \(5,\); config.json asks for \(96,\)"):
        Reranker(folder, device="cpu")


def test_reranker_without_a_head_is_a_model_error_and_an_embedder_needs_none(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("lm_head.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"no lm_head.weight"):
        Reranker(folder, device="cpu")
    assert Embedder(folder, device="cpu").dimension == 96


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name.split(".")[0]):
        Reranker(folder, device="cpu")


def test_truncated_weights_file_is_a_model_error(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(ModelError, match=r"model.safetensors is damaged or incomplete: .*Download it again"):
        Reranker(folder, device="cpu")


def test_truncated_tokenizer_file_is_a_model_error(folder: Path) -> None:
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"tokenizer.json is damaged or incomplete: .*Download it again"):
        Reranker(folder, device="cpu")


def test_another_architecture_is_a_model_error(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "qwen2_vl"}')
    with pytest.raises(ModelError, match="type 'qwen2_vl'"):
        Reranker(folder, device="cpu")


def test_name_that_is_no_folder_and_no_hub_id_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="neither a folder nor a hub id"):
        Embedder("no-such-model")


def test_hub_download_asks_only_for_the_files_that_are_read(
    checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's client is replaced by a function that copies a folder, since tests have no network."""
    commit = "9f2f7e710d6d81056aa5c0a4f04764fec6bb7bda"
    requested: dict[str, object] = {}

    def snapshot_download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        requested.update(name=name, revision=revision, patterns=tuple(allow_patterns))
        return str(shutil.copytree(checkpoints / "embedding", tmp_path / commit, dirs_exist_ok=True))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    embedder = Embedder("Qwen/Qwen3-VL-Embedding-2B", revision=commit, device="cpu")
    assert requested == {"name": "Qwen/Qwen3-VL-Embedding-2B", "revision": commit, "patterns": CHECKPOINT_FILES}
    assert embedder.recipe.revision == commit
    monkeypatch.undo()


def test_hub_failure_names_the_model_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise OSError("the network is unreachable")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    with pytest.raises(
        ModelError, match=r"at revision main cannot be downloaded from the model hub: the network is unreachable. Check"
    ):
        resolve_checkpoint("Qwen/Qwen3-VL-Reranker-8B", "reranker", "main")


def test_embedders_of_one_model_share_its_weights(checkpoints: Path, golden_embedder: Embedder) -> None:
    other = Embedder(checkpoints / "embedding", device="cpu", dimensions=8)
    assert other.engine.model is golden_embedder.engine.model


def test_bfloat16_is_close_to_float32(checkpoints: Path, golden_embedder: Embedder) -> None:
    embedder = Embedder(checkpoints / "embedding", device="cpu", dtype="bfloat16")
    vector = embedder.embed("beach")[0]
    assert vector.dtype == np.float32
    assert float(vector @ golden_embedder.embed("beach")[0]) > 0.99


def test_loading_a_model_and_embedding_a_text_import_neither_the_compiler_nor_media_libraries() -> None:
    """They take seconds to import; torch imports its compiler and sympy when a meta tensor is initialised."""
    program = """
import sys
from qwen3vl import Embedder
Embedder("tiny", device="cpu").embed("a red circle")
slow = {"torch._dynamo", "torch._inductor", "sympy", "av", "httpx", "pypdfium2", "transformers", "huggingface_hub"}
print(*sorted(slow & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []


@pytest.mark.parametrize(
    ("module", "torch_module"),
    [
        (lambda: Embedding(5, 4), lambda: torch.nn.Embedding(5, 4)),
        (lambda: Linear(5, 4), lambda: torch.nn.Linear(5, 4)),
        (lambda: LayerNorm(4), lambda: torch.nn.LayerNorm(4)),
        (lambda: Conv3d(3, 4, (2, 2, 2)), lambda: torch.nn.Conv3d(3, 4, (2, 2, 2))),
    ],
)
def test_modules_outside_the_meta_device_are_initialised_as_torch_does(
    module: Callable[[], torch.nn.Module], torch_module: Callable[[], torch.nn.Module]
) -> None:
    torch.manual_seed(1)
    parameters = dict(module().named_parameters())
    torch.manual_seed(1)
    expected = dict(torch_module().named_parameters())
    assert parameters.keys() == expected.keys()
    assert all(torch.equal(parameters[name], expected[name]) for name in expected)

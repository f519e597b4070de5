"""LoRA adapters: the vectors and scores of the models that peft merges, for each kind of adapter and of keys."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen3vl import Embedder, Recipe, Reranker
from qwen3vl.errors import ModelError, RecipeError
from qwen3vl.model.lora.updates import read_updates
from qwen3vl.model.weights import EMBEDDING, LM_HEAD, empty_model, load_model, updates_of, yes_no_weight
from tests.support.lora_adapters import TEXT_LAYERS, VISION_LAYERS, TrainedAdapter, draw, load, rewrite, train

pytest.importorskip("peft", reason="the adapters are made by peft, which is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

CPU = torch.device("cpu")
YES, NO = 9693, 2152
KINDS: dict[str, dict[str, Any]] = {
    "text": {"target_modules": TEXT_LAYERS},
    "vision": {"target_modules": [*VISION_LAYERS, "patch_embed.proj"]},
    "rslora with patterns": {
        "target_modules": [*TEXT_LAYERS, "qkv"],
        "use_rslora": True,
        "rank_pattern": {r"layers\.[01]\.self_attn\.q_proj": 2, "q_proj": 6, "^model.visual.*qkv": 3},
        # peft sorts the keys when it saves them, and the first that matches counts.
        "alpha_pattern": {r".*layers\.2\..*": 20, "k_proj": 3},
    },
    "dora": {"target_modules": [*TEXT_LAYERS, *VISION_LAYERS, "patch_embed.proj"], "use_dora": True},
    "biases and whole modules": {
        "target_modules": ["q_proj", "attn.qkv"],
        "bias": "all",
        "modules_to_save": ["visual.merger", "language_model.norm"],
    },
    "bias of lora_B": {"target_modules": ["linear_fc1", "attn.qkv"], "lora_bias": True, "bias": "lora_only"},
    "embedding": {"target_modules": ["embed_tokens", "q_proj"], "use_dora": True},
    "trained as AutoModel": {"target_modules": [*TEXT_LAYERS, "qkv"], "auto_model": True},
}
PREFIXES: dict[str, Callable[[str], str]] = {
    "AutoModel": lambda key: key.replace("base_model.model.model.", "base_model.model."),
    "the language model alone": lambda key: key.replace(".language_model.", "."),
    "its base model": lambda key: key.replace("base_model.model.model.language_model.", "base_model.model."),
}


@pytest.fixture(scope="module")
def text_adapter(checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedAdapter:
    return train(checkpoints / "embedding", tmp_path_factory.mktemp("text"), **KINDS["text"])


@pytest.fixture
def inputs(media: dict[str, Path]) -> list[Any]:
    return ["a red circle", {"text": "with its caption", "image": str(next(iter(media.values())))}]


def vectors(model: Path, inputs: list[Any], adapter: Path | None = None, **settings: Any) -> np.ndarray:
    with Embedder(model, adapter=adapter, device="cpu", **settings) as embedder:
        return embedder.embed(inputs)


def least_cosine(vectors: np.ndarray, others: np.ndarray) -> float:
    return float((vectors * others).sum(axis=1).min())


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_model_that_peft_merges(
    kind: str, checkpoints: Path, golden_embedder: Embedder, tmp_path: Path, inputs: list[Any]
) -> None:
    base = checkpoints / "embedding"
    trained = train(base, tmp_path, **KINDS[kind])
    adapted = vectors(base, inputs, trained.folder)
    assert least_cosine(adapted, vectors(trained.merged, inputs)) >= 0.99999
    assert least_cosine(adapted, golden_embedder.embed(inputs)) < 0.99


@pytest.mark.parametrize("checkpoint", ["reranker", "reranker-untied"])
def test_scores_are_those_of_the_model_that_peft_merges(checkpoint: str, checkpoints: Path, tmp_path: Path) -> None:
    base = checkpoints / checkpoint
    trained = train(base, tmp_path, target_modules=TEXT_LAYERS)
    documents = ["a round red shape", "a blue star", "a green square on a hill"]
    scores = []
    for model, adapter in ((base, trained.folder), (trained.merged, None), (base, None)):
        with Reranker(model, adapter=adapter, device="cpu") as reranker:
            scores.append(reranker.score("a red circle", documents))
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5, rtol=0)
    assert np.abs(scores[0] - scores[2]).max() > 0.01


def assert_same_updates(adapter: Path, other: Path, base: Path) -> None:
    model = empty_model(base)
    updates, others = updates_of(adapter, model), updates_of(other, model)
    assert updates.keys() == others.keys()
    for name, update in updates.items():
        tensor = torch.randn(model.state_dict()[name].shape)
        assert torch.equal(update.apply(tensor), others[name].apply(tensor))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_keys_of_each_prefix(prefix: str, checkpoints: Path, text_adapter: TrainedAdapter, tmp_path: Path) -> None:
    rename = PREFIXES[prefix]
    adapter = rewrite(
        text_adapter.folder, tmp_path / "adapter", lambda tensors: {rename(key): tensors[key] for key in tensors}
    )
    assert_same_updates(adapter, text_adapter.folder, checkpoints / "embedding")


def test_bin_files_and_other_dtypes(checkpoints: Path, text_adapter: TrainedAdapter, tmp_path: Path) -> None:
    tensors = load_file(text_adapter.folder / "adapter_model.safetensors")
    config = (text_adapter.folder / "adapter_config.json").read_bytes()
    (tmp_path / "adapter_config.json").write_bytes(config)
    torch.save({key: tensor.double() for key, tensor in tensors.items()}, tmp_path / "adapter_model.bin")
    assert_same_updates(tmp_path, text_adapter.folder, checkpoints / "embedding")
    torch.save({"key": Path("not a tensor")}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match="has more than tensors"):
        updates_of(tmp_path, empty_model(checkpoints / "embedding"))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_other_dtypes_of_the_model(
    dtype: str, checkpoints: Path, text_adapter: TrainedAdapter, inputs: list[Any]
) -> None:
    """The adapter is merged before weights are rounded or quantized."""
    adapted = vectors(checkpoints / "embedding", inputs, text_adapter.folder, dtype=dtype)
    np.testing.assert_allclose(adapted, vectors(text_adapter.merged, inputs, dtype=dtype), atol=5e-3, rtol=0)


@pytest.mark.parametrize(
    ("checkpoint", "config"),
    [
        ("reranker", {"target_modules": ["lm_head"]}),
        ("reranker", {"target_modules": ["lm_head"], "use_dora": True}),
        ("reranker", {"target_modules": ["embed_tokens"]}),
        ("reranker", {"target_modules": ["embed_tokens"], "ensure_weight_tying": True}),
        ("reranker", {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}),
        ("reranker", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}),
        (
            "reranker",
            {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
        ),
        ("reranker-untied", {"target_modules": ["lm_head", "q_proj"]}),
    ],
)
def test_head_and_embedding_are_those_of_the_model_that_was_trained(
    checkpoint: str, config: dict[str, Any], checkpoints: Path, tmp_path: Path
) -> None:
    """Compared with peft before it merges: merging into tied weights changes both of them there."""
    from peft import LoraConfig, get_peft_model

    base = checkpoints / checkpoint
    trained = get_peft_model(load(base), LoraConfig(r=4, lora_alpha=8, **config))
    draw(trained)
    trained.save_pretrained(tmp_path)
    states = torch.randn(5, 96)
    ids = torch.tensor([YES, NO, 17])
    with torch.no_grad():
        logits = trained.get_output_embeddings()(states)
        embedded = trained.get_input_embeddings()(ids)
    model = load_model(base, CPU, torch.float32, adapter=tmp_path)
    weight = yes_no_weight(base, model, YES, NO, tmp_path)
    torch.testing.assert_close(states @ weight, logits[:, YES] - logits[:, NO], atol=1e-5, rtol=0)
    torch.testing.assert_close(model.language_model.embed_tokens(ids), embedded, atol=1e-5, rtol=0)
    untouched = load_model(base, CPU, torch.float32)
    changed = not torch.equal(weight, yes_no_weight(base, untouched, YES, NO))
    names = updates_of(tmp_path, empty_model(base)).keys()
    assert changed == (LM_HEAD in names)
    assert changed or EMBEDDING in names


def test_recipe_and_shared_weights(checkpoints: Path, text_adapter: TrainedAdapter, tmp_path: Path) -> None:
    base = checkpoints / "embedding"
    settings: dict[str, Any] = {"device": "cpu"}
    with Embedder(base, **settings) as plain, Embedder(base, adapter=text_adapter.folder, **settings) as adapted:
        assert "adapter" not in plain.recipe.to_dict()
        assert adapted.recipe.to_dict()["adapter"] == str(text_adapter.folder.resolve())
        assert Recipe.from_dict(adapted.recipe.to_dict()) == adapted.recipe
        assert Recipe.from_dict(plain.recipe.to_dict()) == plain.recipe
        assert plain.recipe.digest != adapted.recipe.digest
        with pytest.raises(RecipeError, match=f"with the adapter '{text_adapter.folder}"):
            plain.recipe.check(adapted.recipe, "library")
        with Embedder(adapted.recipe.model, **settings, **adapted.recipe.settings) as reopened:
            assert reopened.recipe == adapted.recipe
            assert reopened.engine.model is adapted.engine.model
        # The vision tower is the same, and so is its cache.
        assert plain.engine.model.visual is adapted.engine.model.visual
        other = rewrite(text_adapter.folder, tmp_path / "other", lambda tensors: tensors)
        with Embedder(base, adapter=other, **settings) as same:
            assert same.recipe.digest == adapted.recipe.digest
        change_config(other, lora_alpha=9)
        with Embedder(base, adapter=other, **settings) as changed:
            assert changed.recipe.digest != adapted.recipe.digest


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pissa": ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16.*path_initial_model_for_weight_conversion"),
    "olora": ({"init_lora_weights": "olora"}, "olora"),
    "corda": ({"init_lora_weights": "corda"}, "corda"),
    "loftq": ({"init_lora_weights": "loftq"}, "loftq"),
    "aLoRA": ({"alora_invocation_tokens": [1, 2]}, "aLoRA.*alora_invocation_tokens"),
    "QALoRA": ({"use_qalora": True}, "QALoRA.*use_qalora"),
    "layer_replication": ({"layer_replication": [[0, 2], [1, 4]]}, "layer_replication"),
    "target_parameters": ({"target_parameters": ["experts.up"]}, "target_parameters"),
    "AdaLoRA": ({"peft_type": "ADALORA"}, "type ADALORA"),
    "VeRA": ({"peft_type": "VERA"}, "type VERA"),
    "BOFT": ({"peft_type": "BOFT"}, "type BOFT"),
    "a classifier": ({"task_type": "SEQ_CLS"}, "SEQ_CLS.*score.*generative_reranker"),
    "the other kind of model": (
        {"base_model_name_or_path": "Qwen/Qwen3-VL-Reranker-2B"},
        "adapter .* is a reranker, not an embedding model: it was trained on Qwen3-VL-Reranker-2B",
    ),
    "no rank": ({"r": None}, "adapter_config.json is damaged"),
    "a broken pattern": ({"rank_pattern": {"(": 3}}, "adapter_config.json is damaged"),
    "another rank": ({"r": 3}, "layers.0.*rank 4, and adapter_config.json says 3"),
    "lengths that are missing": ({"use_dora": True}, "use_dora is true, and lora_magnitude_vector is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_adapters_that_cannot_be_merged_are_refused_by_name(
    case: str, checkpoints: Path, text_adapter: TrainedAdapter, tmp_path: Path
) -> None:
    fields, message = REFUSED[case]
    adapter = rewrite(text_adapter.folder, tmp_path / "adapter", lambda tensors: tensors)
    change_config(adapter, **fields)
    with pytest.raises(ModelError, match=message):
        Embedder(checkpoints / "embedding", adapter=adapter, device="cpu")


Q_PROJ = "base_model.model.model.language_model.layers.0.self_attn.q_proj"
WRONG_KEYS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "no adapter's keys": (
        lambda tensors: {key.removeprefix("base_model."): tensors[key] for key in tensors},
        r"56 of its 56 keys .*\(model\.model\.language_model.*, …\).*expected keys begin like base_model",
    ),
    "a layer that the model lacks": (
        lambda tensors: {**tensors, "base_model.model.model.language_model.layers.9.mlp.lora_A.weight": torch.ones(2)},
        r"1 of its 57 keys .*\(base_model\.model\.model\.language_model\.layers\.9",
    ),
    "a head of its own": (lambda tensors: {**tensors, "base_model.model.score.weight": torch.ones(1, 96)}, "score"),
    "nothing": (lambda tensors: {}, "0 of its 0 keys"),
    "half a pair": (
        lambda tensors: {key: tensors[key] for key in tensors if key != f"{Q_PROJ}.lora_B.weight"},
        "layers.0.self_attn.q_proj: it has lora_A.weight; a layer has lora_A.weight and lora_B.weight",
    ),
    "a bias where none is": (
        lambda tensors: {**tensors, f"{Q_PROJ}.lora_B.bias": torch.ones(128)},
        "q_proj: its lora_B has a bias, and the layer has none",
    ),
    "another size": (
        lambda tensors: {**tensors, f"{Q_PROJ}.lora_A.weight": torch.ones(4, 64)},
        r"q_proj: lora_A has shape \(4, 64\), and the base model's tensor \(128, 96\).*trained on another model",
    ),
    "two prefixes": (
        lambda tensors: {
            **tensors,
            **{key.replace(".language_model.", "."): tensors[key] for key in tensors if key.startswith(Q_PROJ)},
        },
        "layers.0.self_attn.q_proj: the layer has keys of two prefixes",
    ),
    "parts of shards": (
        lambda tensors: {**tensors, f"{Q_PROJ}.lora_A.weight": torch.ones(0)},
        "q_proj: .* are no matrices; if it was trained in shards",
    ),
}


@pytest.mark.parametrize("case", WRONG_KEYS)
def test_keys_that_do_not_fit_are_named(
    case: str, checkpoints: Path, text_adapter: TrainedAdapter, tmp_path: Path
) -> None:
    change, message = WRONG_KEYS[case]
    adapter = rewrite(text_adapter.folder, tmp_path / "adapter", change)
    with pytest.raises(ModelError, match=message):
        Embedder(checkpoints / "embedding", adapter=adapter, device="cpu")


def test_missing_and_damaged_files(checkpoints: Path, text_adapter: TrainedAdapter, tmp_path: Path) -> None:
    base = checkpoints / "embedding"
    for adapter, message in (
        ("not-there", "the adapter not-there is neither a folder nor a hub id"),
        (base, "is no adapter: it has no adapter_config.json"),
    ):
        with pytest.raises(ModelError, match=message):
            Embedder(base, adapter=adapter, device="cpu")
    adapter = rewrite(text_adapter.folder, tmp_path / "adapter", lambda tensors: tensors)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors is damaged"):
        Embedder(base, adapter=adapter, device="cpu")
    weights.unlink()
    with pytest.raises(ModelError, match="has no adapter weights"):
        Embedder(base, adapter=adapter, device="cpu")
    with pytest.raises(ValueError, match=r"adapter: for a model that runs in this process"):
        Embedder("vllm+http://localhost:1", adapter=adapter)


def test_one_pair_of_matrices_by_hand(tmp_path: Path) -> None:
    """The arithmetic, computed with numpy in float64."""
    down, up, base = torch.randn(2, 5), torch.randn(3, 2), torch.randn(3, 5)
    layer = "base_model.model.model.layers.0.mlp.up_proj"
    save_file({f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 6, "use_rslora": True})
    )
    name = "language_model.layers.0.mlp.up_proj.weight"
    before = base.clone()
    update = read_updates(tmp_path, {name: (3, 5)})[name]
    expected = base.double().numpy() + 6 / np.sqrt(2) * (up.double().numpy() @ down.double().numpy())
    np.testing.assert_allclose(update.apply(base), expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(update.of_rows([2, 0]).apply(base[[2, 0]]), expected[[2, 0]], atol=1e-5, rtol=0)
    assert torch.equal(base, before)

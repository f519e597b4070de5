"""`qwen3vl merge`: transformers loads what it writes, with the outputs of the model that was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qwen3vl import Embedder
from qwen3vl.cli import main
from tests.support.lora_adapters import TEXT_LAYERS, draw, load, train, write_adapter

pytest.importorskip("peft", reason="the adapters are made by peft, which is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

IDS = torch.tensor([[9693, 2152, 17, 4, 99]])


def merge(base: Path, adapter: Path, out: Path) -> None:
    assert main(["merge", str(base), str(adapter), str(out)]) == 0


def test_merged_checkpoint_equals_the_adapter_and_the_model_that_peft_merges(checkpoints: Path, tmp_path: Path) -> None:
    base, out = checkpoints / "embedding", tmp_path / "out"
    trained = train(base, tmp_path, target_modules=[*TEXT_LAYERS, "qkv"])
    merge(base, trained.folder, out)
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()}
    assert (out / "config.json").read_bytes() == (base / "config.json").read_bytes()
    with torch.no_grad():
        hidden = [load(folder)(IDS, output_hidden_states=True).hidden_states[-1] for folder in (out, trained.merged)]
    torch.testing.assert_close(hidden[0], hidden[1], atol=1e-5, rtol=0)
    with Embedder(out, device="cpu") as merged, Embedder(base, adapter=trained.folder, device="cpu") as adapted:
        np.testing.assert_array_equal(merged.embed("a red circle"), adapted.embed("a red circle"))


@pytest.mark.parametrize(
    ("checkpoint", "config"),
    [
        ("reranker", {"target_modules": ["lm_head", "q_proj"]}),
        ("reranker", {"target_modules": ["embed_tokens"], "use_dora": True}),
        ("reranker-untied", {"target_modules": ["lm_head", "q_proj"]}),
    ],
)
def test_heads_and_embeddings_are_those_of_the_model_that_was_trained(
    checkpoint: str, config: dict[str, Any], checkpoints: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    trained = get_peft_model(load(checkpoints / checkpoint), LoraConfig(r=4, lora_alpha=8, **config))
    draw(trained)
    trained.save_pretrained(tmp_path / "adapter")
    merge(checkpoints / checkpoint, tmp_path / "adapter", tmp_path / "out")
    with torch.no_grad():
        logits = load(tmp_path / "out")(IDS).logits
        torch.testing.assert_close(logits, trained(IDS).logits, atol=1e-4, rtol=0)


def test_shards_dtypes_and_other_files(checkpoints: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import Qwen3VLForConditionalGeneration

    base = tmp_path / "base"
    model = Qwen3VLForConditionalGeneration.from_pretrained(checkpoints / "embedding", dtype=torch.bfloat16)
    model.save_pretrained(base, max_shard_size="20MB")
    shutil.copyfile(checkpoints / "embedding" / "tokenizer.json", base / "tokenizer.json")
    (base / "1_Pooling").mkdir()
    (base / "1_Pooling" / "config.json").write_text("{}")
    (base / "optimizer.bin").write_bytes(b"of the training")
    (base / "adapter_config.json").write_text("{}")  # transformers would look for the adapter's weights
    trained = train(checkpoints / "embedding", tmp_path, target_modules=["q_proj"])
    merge(base, trained.folder, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(index["weight_map"].values())) > 1
    assert (tmp_path / "out" / "1_Pooling" / "config.json").is_file()
    assert not (tmp_path / "out" / "optimizer.bin").exists()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    tensors: dict[str, torch.Tensor] = {}
    for name in set(index["weight_map"].values()):
        tensors |= load_file(tmp_path / "out" / name)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    assert load(tmp_path / "out")(IDS).logits.isfinite().all()


def test_wrong_arguments(checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = str(checkpoints / "embedding")
    assert main(["merge", base, base, str(tmp_path / "out")]) == 2
    assert "is no adapter" in " ".join(capsys.readouterr().out.split())
    assert not (tmp_path / "out").exists()
    adapter = write_adapter(checkpoints / "embedding", tmp_path / "adapter")
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "Qwen/Qwen3-VL-Reranker-2B"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert main(["merge", base, str(adapter), str(tmp_path / "out")]) == 2
    message = " ".join(capsys.readouterr().out.split())
    assert "is of a reranker: it was trained on Qwen3-VL-Reranker-2B; and" in message
    assert "is an embedding model" in message
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    assert main(["merge", base, base, str(tmp_path)]) == 2
    assert "is not empty" in " ".join(capsys.readouterr().out.split())

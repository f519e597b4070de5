"""Reading of a checkpoint's config.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen3vl import ModelError
from qwen3vl.model import read_config


def test_both_spellings_of_rope_parameters_are_read(checkpoints: Path, tmp_path: Path) -> None:
    """transformers 4 writes `rope_scaling` and `rope_theta`, transformers 5 `rope_parameters`."""
    raw = json.loads((checkpoints / "embedding" / "config.json").read_text())
    rope = raw["text_config"].pop("rope_scaling")
    raw["text_config"]["rope_parameters"] = {**rope, "rope_theta": raw["text_config"].pop("rope_theta")}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path / "config.json") == read_config(checkpoints / "embedding" / "config.json")


@pytest.mark.parametrize("section", ["config", "text_config"])
@pytest.mark.parametrize("method", ["fp8", "awq", "compressed-tensors"])
def test_weights_that_are_quantised_already_are_refused(
    checkpoints: Path, tmp_path: Path, section: str, method: str
) -> None:
    raw = json.loads((checkpoints / "embedding" / "config.json").read_text())
    (raw if section == "config" else raw[section])["quantization_config"] = {"quant_method": method}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(
        ModelError, match=rf'quantised already \({method}\).* use the original checkpoint with dtype="int8"'
    ):
        read_config(tmp_path / "config.json")


def test_empty_quantization_config_says_nothing(checkpoints: Path, tmp_path: Path) -> None:
    raw = json.loads((checkpoints / "embedding" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"quantization_config": None}))
    assert read_config(tmp_path / "config.json") == read_config(checkpoints / "embedding" / "config.json")

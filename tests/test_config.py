"""Reading of a checkpoint's config.json."""

from __future__ import annotations

import json
from pathlib import Path

from qwen3vl.model import read_config


def test_both_spellings_of_rope_parameters_are_read(checkpoints: Path, tmp_path: Path) -> None:
    """transformers 4 writes `rope_scaling` and `rope_theta`, transformers 5 `rope_parameters`."""
    raw = json.loads((checkpoints / "embedding" / "config.json").read_text())
    rope = raw["text_config"].pop("rope_scaling")
    raw["text_config"]["rope_parameters"] = {**rope, "rope_theta": raw["text_config"].pop("rope_theta")}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_config(tmp_path / "config.json") == read_config(checkpoints / "embedding" / "config.json")

"""The settings of a LoRA adapter, read from its `adapter_config.json`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from qwen3vl.errors import ModelError

ValueT = TypeVar("ValueT", int, float)

CONFIG_FILE = "adapter_config.json"
_REFUSED_FIELDS = {
    "alora_invocation_tokens": "aLoRA, which changes only the tokens after an invocation",
    "use_qalora": "QALoRA, which needs quantized weights",
    "layer_replication": "layer_replication, which makes a model with other layers",
    "target_parameters": "target_parameters",
    "trainable_token_indices": "trainable_token_indices",
    "arrow_config": "Arrow, which chooses between adapters for each token",
    "use_bdlora": "BD-LoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
"""Settings of peft that make an adapter of another kind, and what it is called."""
_REFUSED_INITIALIZATIONS = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""These change the base model's weights before training, so that the published base is not what the adapter needs."""


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What decides how an adapter's matrices are merged.

    Attributes:
        rank: Rank of the update of a layer that is not in `rank_pattern`.
        alpha: Numerator of the scale of a layer that is not in `alpha_pattern`.
        rank_pattern: Regular expressions for the end of a layer's name, and the rank of the layers that match.
        alpha_pattern: The same for alpha.
        rank_stabilized: Whether the scale is alpha / sqrt(rank) (rsLoRA, arXiv 2312.03732), not alpha / rank.
        decomposed: Whether lengths and directions of the rows are trained separately (DoRA, arXiv 2402.09353).
    """

    rank: int
    alpha: float
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    rank_stabilized: bool = False
    decomposed: bool = False

    def rank_of(self, layer: str) -> int:
        """Return the rank of a layer's update.

        Args:
            layer: The layer's name in the model that was trained.

        Returns:
            The rank.
        """
        return _first_match(self.rank_pattern, layer, self.rank)

    def scale_of(self, layer: str) -> float:
        """Return the factor of a layer's update.

        Args:
            layer: The layer's name in the model that was trained.

        Returns:
            The factor.
        """
        rank = self.rank_of(layer)
        return _first_match(self.alpha_pattern, layer, self.alpha) / (math.sqrt(rank) if self.rank_stabilized else rank)


def read_lora_config(folder: Path) -> LoraConfig:
    """Read the settings of an adapter.

    Args:
        folder: The adapter's folder.

    Returns:
        Its settings.

    Raises:
        ModelError: `adapter_config.json` is missing or damaged, or describes an adapter that cannot be merged exactly.
    """
    path = folder / CONFIG_FILE
    raw = read_raw_config(folder)
    _refuse_other_kinds(path, raw)
    try:
        config = LoraConfig(
            rank=int(raw["r"]),
            alpha=float(raw["lora_alpha"]),
            rank_pattern=tuple((key, int(rank)) for key, rank in (raw.get("rank_pattern") or {}).items()),
            alpha_pattern=tuple((key, float(alpha)) for key, alpha in (raw.get("alpha_pattern") or {}).items()),
            rank_stabilized=bool(raw.get("use_rslora")),
            decomposed=bool(raw.get("use_dora")),
        )
        for key, _ in (*config.rank_pattern, *config.alpha_pattern):
            re.compile(key)
    except (LookupError, ValueError, TypeError, AttributeError, re.error) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__}: {error}); save the adapter again") from error
    if min((config.rank, *(rank for _, rank in config.rank_pattern))) < 1:
        raise ModelError(f"{path} has a rank below 1; save the adapter again")
    return config


def read_raw_config(folder: Path) -> Mapping[str, Any]:
    """Read an adapter's `adapter_config.json`.

    Args:
        folder: The adapter's folder.

    Returns:
        The fields, as peft wrote them.

    Raises:
        ModelError: It is missing, or no JSON object.
    """
    path = folder / CONFIG_FILE
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is no adapter: it has no {CONFIG_FILE}, which peft writes; a merged model is given as the model"
        ) from error
    except (ValueError, RecursionError, OSError) as error:
        raise ModelError(f"{path} cannot be read ({error}); save the adapter again") from error
    if not isinstance(raw, dict):
        raise ModelError(f"{path} is not a JSON object; save the adapter again")
    return raw


def _refuse_other_kinds(path: Path, raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise ModelError(f"{path} describes an adapter of type {raw.get('peft_type')}; only LORA can be merged here")
    if raw.get("task_type") == "SEQ_CLS":
        raise ModelError(
            f"{path} has the task type SEQ_CLS: its scores come from a head of its own (score), not from the answers "
            "yes and no. Train it as a generative reranker (with ms-swift: --task_type generative_reranker)"
        )
    for field, name in _REFUSED_FIELDS.items():
        if raw.get(field):
            raise ModelError(f"{path} uses {name} ({field}); this cannot be merged exactly. Train a plain LoRA or DoRA")
    initialization = str(raw.get("init_lora_weights")).lower()
    if initialization.startswith(_REFUSED_INITIALIZATIONS):
        raise ModelError(
            f"{path} has init_lora_weights={initialization!r}, which changed the base model before training, so the "
            "adapter does not fit the published one. Convert it with peft: save_pretrained("
            "path_initial_model_for_weight_conversion=…), or merge it there"
        )


def _first_match(patterns: tuple[tuple[str, ValueT], ...], layer: str, default: ValueT) -> ValueT:
    """Return the value of the first pattern that matches, as `get_pattern_key` of peft finds it."""
    return next((value for key, value in patterns if re.match(rf"(.*\.)?({key})$", layer)), default)

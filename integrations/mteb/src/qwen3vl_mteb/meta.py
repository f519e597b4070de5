"""What mteb's `ModelMeta` says of a model: the facts that mteb knows, and the settings that are measured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mteb import get_model_meta
from mteb.models import ModelMeta
from mteb.models.model_meta import ScoringFunction

from qwen3vl.embedder import Embedder
from qwen3vl.recipe import Recipe
from qwen3vl.reranker import Reranker

ModelType = Literal["dense", "cross-encoder"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DIGEST_CHARACTERS = 12


def model_meta(
    recipe: Recipe, model_type: ModelType, *, loader: Any, name: str | None, settings: Mapping[str, Any]
) -> ModelMeta:
    """Return what is known of a model.

    Args:
        recipe: The model's recipe.
        model_type: Whether it embeds or scores.
        loader: The class that loads it.
        name: Its name as owner and name; None is its hub id, or made of the folder's name.
        settings: What else decides the results. Results with other settings are other experiments for mteb, so that
            its cache does not mix them.

    Returns:
        The facts. Those of models that mteb does not know are None.
    """
    is_encoder = model_type == "dense"
    meta = _known_facts(recipe.model)
    experiment = {"implementation": "qwen3vl", "recipe": recipe.digest[:_DIGEST_CHARACTERS]}
    updates = {
        "loader": loader,
        "name": name or _name(recipe.model),
        "revision": recipe.revision or "no_revision_available",
        "max_tokens": recipe.max_length,
        "embed_dim": recipe.dimensions if is_encoder else None,
        "similarity_fn_name": ScoringFunction.COSINE if is_encoder else None,
        "modalities": ["text", "image", "video"],
        "model_type": [model_type],
        "use_instructions": True,
        "framework": ["PyTorch", "safetensors"],
        "adapted_from": recipe.model if recipe.adapter else meta.adapted_from,
        "output_dtypes": None,  # float32
        "extra_requirements_groups": None,  # those of mteb's own implementation
        "experiment_kwargs": experiment | {key: value for key, value in settings.items() if value is not None},
    }
    return meta.model_copy(update=updates)


def measured_dtype(model: Embedder | Reranker) -> str | None:
    """Return the dtype of a model's weights as a setting of an experiment.

    Args:
        model: The model.

    Returns:
        The dtype that is in use, also where the setting is `"auto"`. None for float32, the reference, and for a model
        in a server, which does not say it.
    """
    engine = getattr(model, "engine", None)
    return None if engine is None or engine.dtype == "float32" else str(engine.dtype)


def _known_facts(model: str) -> ModelMeta:
    """Return mteb's own metadata of a model, without asking the hub; empty ones for unknown models."""
    try:
        return get_model_meta(model) if _HUB_ID.fullmatch(model) else ModelMeta.create_empty()
    except KeyError:
        return ModelMeta.create_empty()


def _name(model: str) -> str:
    """Return a name as mteb requires it: an owner, a slash, and a name without another one."""
    return model if _HUB_ID.fullmatch(model) else f"qwen3vl/{Path(model).name or 'model'}"

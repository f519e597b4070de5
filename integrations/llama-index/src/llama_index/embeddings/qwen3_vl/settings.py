"""What the embedding model and the reranker have in common, as LlamaIndex's pydantic classes."""

from __future__ import annotations

import pickle
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, model_validator

from qwen3vl.adapters.settings import ModelSettings


class LlamaIndexModelSettings(ModelSettings):
    """Settings of a model that loads on first use; objects with equal settings share it."""

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, values: Any) -> Any:
        """Drop `class_name`, which `model_dump` of LlamaIndex's classes adds."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key != "class_name"}


def state_without_model(model: BaseModel) -> dict[str, Any]:
    """Return the state to pickle: every field that can be pickled, and no weights.

    LlamaIndex's own `__getstate__` pickles private attributes, weights included, to find out whether they can be
    pickled, and takes fields such as caches with locks from the live object.
    """
    picklable = {name: value for name, value in model.__dict__.items() if _is_picklable(value)}
    return {
        "__dict__": picklable,
        "__pydantic_fields_set__": set(model.model_fields_set) & picklable.keys(),
        "__pydantic_extra__": None,
        "__pydantic_private__": None,
    }


def _is_picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # objects of others may raise anything
        return False
    return True

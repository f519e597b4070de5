"""What the embedding model and the reranker have in common: where they run, and what references may reach."""

from __future__ import annotations

import pickle
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, Field, field_validator, model_validator

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.adapters.registry import check_model_kwargs
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, require_folders


class ModelSettings(BaseModel):
    """Settings of a model, which loads on first use; objects of equal settings share it."""

    revision: str | None = Field(default=None, description="Branch, tag or, best, commit of the hub's repository.")
    device: str = Field(default="auto", description='"auto", "cpu", "cuda", "cuda:1" or "mps".')
    dtype: str = Field(
        default="auto",
        description='"auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16", "float16", "int8" or "fp8"',
    )
    policy: MediaPolicy = Field(
        default=UNTRUSTED_POLICY,
        description="What media references may reach: public URLs and data URIs, and files only below its folders.",
    )
    media_keys: MediaKeys = Field(default=DEFAULT_KEYS, description="Metadata under which nodes carry media.")
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further arguments of the core's object: max_length, max_pixels, fps, …"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_class_name(cls, told: Any) -> Any:
        """`model_dump` adds it."""
        return {key: value for key, value in told.items() if key != "class_name"} if isinstance(told, dict) else told

    @field_validator("policy")
    @classmethod
    def _named(cls, value: MediaPolicy) -> MediaPolicy:
        return require_folders(value)

    @field_validator("model_kwargs")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_model_kwargs(value)
        return value

    def _settings(self, model: str, instruction: str | None) -> dict[str, Any]:
        """Arguments of the core's object."""
        told = {
            "model": model,
            "revision": self.revision,
            "device": self.device,
            "dtype": self.dtype,
            "policy": self.policy,
            **self.model_kwargs,
        }
        return told if instruction is None else {**told, "instruction": instruction}


def state_without_model(model: BaseModel) -> dict[str, Any]:
    """What a pickle holds: all fields but those that cannot be pickled, such as caches with locks, and no weights.

    LlamaIndex's own would pickle the weights to see whether they can be, and take such fields from the live object.
    """
    fields = {name: value for name, value in model.__dict__.items() if _picklable(value)}
    return {
        "__dict__": fields,
        "__pydantic_fields_set__": set(model.model_fields_set) & fields.keys(),
        "__pydantic_extra__": None,
        "__pydantic_private__": None,
    }


def _picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # whatever an object's own code raises
        return False
    return True

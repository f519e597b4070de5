"""What the embeddings and the reranker have in common: which model, where, and what its references may reach."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langchain_core.utils import from_env
from pydantic import BaseModel, ConfigDict, Field, field_validator

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.adapters.registry import check_model_kwargs
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, require_folders


class ModelSettings(BaseModel):
    """Settings of a model, which loads on first use; objects of equal settings share it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, validate_assignment=True)

    revision: str | None = None
    """Branch, tag or, best, commit of the hub's repository."""
    device: str = Field(default_factory=from_env("QWEN3VL_DEVICE", default="auto"))
    """"auto", "cpu", "cuda", "cuda:1" or "mps"; by default what the environment's QWEN3VL_DEVICE says, or "auto"."""
    dtype: str = "auto"
    """"auto" (bfloat16 on CUDA, else float32), "float32", "bfloat16", "float16", "int8" or "fp8"."""
    policy: MediaPolicy = UNTRUSTED_POLICY
    """What media references may reach: public URLs and data URIs, and files only below the folders that it names, none
    by default: `MediaPolicy(folders=("photos",))`."""
    media_keys: MediaKeys = DEFAULT_KEYS
    """Metadata under which documents carry media."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `qwen3vl.Embedder` or `Reranker`: max_length, max_pixels, fps, batch_tokens, …"""
    show_progress: bool = False
    """Whether a bar is shown."""

    @field_validator("model_kwargs")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        check_model_kwargs(value)
        return value

    @field_validator("policy")
    @classmethod
    def _named(cls, value: MediaPolicy) -> MediaPolicy:
        return require_folders(value)

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

    def __getstate__(self) -> dict[Any, Any]:
        """Everything but the model: the copy in another process loads its own when it needs it."""
        state: Mapping[Any, Any] = super().__getstate__()
        return {**state, "__pydantic_private__": dict.fromkeys(self.__private_attributes__)}

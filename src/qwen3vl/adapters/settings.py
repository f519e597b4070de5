"""The model settings that pydantic classes of framework integrations share. Requires pydantic, as they do."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any, Self, TypedDict

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_serializer, field_validator

from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.adapters.model_handle import ModelHandle
from qwen3vl.adapters.once import OnceLogger
from qwen3vl.media import UNTRUSTED_POLICY, MediaPolicy, policy_for_documents
from qwen3vl.settings import ClientSettings, EngineSettings, server_urls

_OWN_FIELDS = frozenset({"revision", "adapter", "device", "dtype", "policy", "api_key"})
MODEL_KWARGS = tuple(
    field.name for field in (*fields(EngineSettings), *fields(ClientSettings)) if field.name not in _OWN_FIELDS
)
"""Names that `model_kwargs` may hold: the settings of an engine or a client that are no fields of `ModelSettings`."""


def _default_device() -> str:
    return os.environ.get("QWEN3VL_DEVICE", "auto")


class ModelArguments(TypedDict, total=False):
    """The fields of `ModelSettings` as keyword arguments, for type checkers."""

    revision: str | None
    adapter: str | None
    device: str
    dtype: str
    policy: MediaPolicy
    api_key: SecretStr | str | None
    media_keys: MediaKeys
    model_kwargs: dict[str, Any]


class ModelSettings(BaseModel):
    """Settings of a model that loads on first use; objects with equal settings share it.

    Attributes:
        revision: Branch, tag or (best) commit of the model's repository on the hub.
        adapter: A LoRA adapter that is merged into the model: folder, or hub id, perhaps with a commit; with the URL of
            a server, the name of one that it serves.
        device: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`. The default is the environment variable
            QWEN3VL_DEVICE, or `"auto"`; with the URL of a server it is not used, and is dumped as `"auto"`.
        dtype: `"auto"` (bfloat16 on GPUs that have it, else float32), `"float32"`, `"bfloat16"`, `"float16"`, `"int8"`
            or `"fp8"`.
        policy: Which files and addresses media references may reach. The default allows public URLs and data URIs,
            and no files; `MediaPolicy(folders=("photos",))` allows the files below a folder.
        api_key: Key for a model that is the URL of a server. The default is the environment variable QWEN3VL_API_KEY.
            It is part of no dump of the settings.
        media_keys: Metadata keys under which documents carry media references.
        model_kwargs: Further fields of `EngineSettings`, or for the URL of a server of `ClientSettings`: max_length,
            max_pixels, fps, batch_tokens, timeout_s, …
    """

    revision: str | None = Field(default=None, description="Branch, tag or commit of the model's repository.")
    adapter: str | None = Field(
        default=None, description="A LoRA adapter: folder, hub id, hub id@commit, or name in a server."
    )
    device: str = Field(default_factory=_default_device, description='"auto", "cpu", "cuda", "cuda:1" or "mps".')
    dtype: str = Field(
        default="auto",
        description='"auto" (bfloat16 on newer GPUs, else float32), "float32", "bfloat16", "float16", "int8" or "fp8".',
    )
    policy: MediaPolicy = Field(
        default=UNTRUSTED_POLICY, description="Which files and addresses media references may reach."
    )
    api_key: SecretStr | None = Field(
        default=None, exclude=True, description="Key for a model that is the URL of a server."
    )
    media_keys: MediaKeys = Field(
        default=DEFAULT_KEYS, description="Metadata keys under which documents carry media references."
    )
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Further settings: max_length, max_pixels, fps, batch_tokens, timeout_s, …"
    )

    _model: ModelHandle = PrivateAttr(default_factory=ModelHandle)
    _once: OnceLogger = PrivateAttr(default_factory=OnceLogger)

    def __copy__(self) -> Self:
        """Return a shallow copy, as `model_copy` makes it, that holds its model independently of this object."""
        copied = super().__copy__()
        copied._model = ModelHandle(self._model.model)  # noqa: SLF001 (an object of this class)
        copied._once = OnceLogger()  # noqa: SLF001 (as above)
        return copied

    @field_serializer("device")
    def _serialize_device(self, device: str) -> str:
        # What is read back counts as set, and a device that was set is an error with a server.
        is_default = "device" not in self.model_fields_set
        return "auto" if is_default and _is_server(getattr(self, "model", "")) else device

    @field_validator("model_kwargs")
    @classmethod
    def _check_model_kwargs(cls, value: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(value.keys() - set(MODEL_KWARGS)):
            raise ValueError(
                f"unknown: {', '.join(unknown)}; model_kwargs may hold {', '.join(MODEL_KWARGS)}, everything else is "
                "a field of its own"
            )
        return value

    @field_validator("policy")
    @classmethod
    def _check_policy(cls, value: MediaPolicy) -> MediaPolicy:
        return policy_for_documents(value)

    def engine_arguments(self, model: str, instruction: str | None) -> dict[str, Any]:
        """Return the keyword arguments of `Embedder` or `Reranker`.

        Args:
            model: The model's hub id, folder, or `"tiny"`, or the URL of a server.
            instruction: The instruction; None leaves the model's default.

        Returns:
            Keyword arguments, among them `model` and `policy`.
        """
        arguments = {
            "model": model,
            "revision": self.revision,
            "adapter": self.adapter,
            "device": self.device,
            "dtype": self.dtype,
            "policy": self.policy,
            **self.model_kwargs,
        }
        if server_urls(model) and ("device" not in self.model_fields_set or self.device == "auto"):
            del arguments["device"]  # QWEN3VL_DEVICE is for the models in this process
        if self.api_key is not None:
            arguments["api_key"] = self.api_key.get_secret_value()
        return arguments if instruction is None else {**arguments, "instruction": instruction}


def _is_server(model: str) -> bool:
    try:
        return bool(server_urls(model))
    except ValueError:  # a URL with a mistake, which is an error when the model is used
        return True

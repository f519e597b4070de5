"""What the components of this package have in common, as LlamaIndex's pydantic classes."""

from __future__ import annotations

import pickle
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, model_validator

from qwen3vl.adapters.settings import ModelSettings

MODEL_DESCRIPTION = 'A hub id, a local folder, "tiny", or the URL of a server.'


class ComponentSettings(BaseModel):
    """Settings of a component of LlamaIndex; components of one class with equal settings are equal.

    Settings are what `model_dump` returns: not the model that was loaded, a callback manager, a cache or a limiter.
    Pickles contain the fields that can be pickled, and no model.

    Example:
        ```python
        from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures

        assert Qwen3VLPictures(side=64) == Qwen3VLPictures.from_dict(Qwen3VLPictures(side=64).to_dict())
        ```
    """

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, values: Any) -> Any:
        """Drop `class_name`, which `model_dump` of LlamaIndex's classes adds."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key != "class_name"}

    def __eq__(self, other: object) -> bool:
        # Pydantic also compares fields that are no settings, such as callback managers, which are never equal.
        if not isinstance(other, ComponentSettings) or type(self) is not type(other):
            return NotImplemented
        return self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]  # as pydantic's models, whose fields can be assigned

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex's method deletes fields that cannot be pickled, such as caches with locks, from the live object.
        fields = {name: value for name, value in self.__dict__.items() if _is_picklable(value)}
        return {
            "__dict__": fields,
            "__pydantic_fields_set__": set(self.model_fields_set) & fields.keys(),
            "__pydantic_extra__": None,
            "__pydantic_private__": {
                name: attribute.get_default() for name, attribute in self.__private_attributes__.items()
            },
        }


class LlamaIndexModelSettings(ComponentSettings, ModelSettings):
    """Settings of a model that loads on first use; objects with equal settings share it.

    The model is named by `model` or by `model_name`, whichever of them is the field of a class.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

        first = Qwen3VLEmbedding(model_name="tiny", device="cpu", model_kwargs={"max_length": 512})
        second = Qwen3VLEmbedding(model="tiny", device="cpu", model_kwargs={"max_length": 512})
        assert first == second
        assert first.embedder is second.embedder
        ```
    """

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # LlamaIndex passes all fields to the constructor, and a `device` that was set is an error with a server.
        object.__setattr__(self, "__pydantic_fields_set__", set(state["__pydantic_fields_set__"]))

    @model_validator(mode="before")
    @classmethod
    def _accept_both_names(cls, values: Any) -> Any:
        """Take `model` for `model_name`, or the reverse."""
        field, alias = ("model_name", "model") if "model_name" in cls.model_fields else ("model", "model_name")
        if not isinstance(values, dict) or alias not in values:
            return values
        settings = {key: value for key, value in values.items() if key != alias}
        if settings.setdefault(field, values[alias]) != values[alias]:
            raise ValueError(
                f"{field} is {settings[field]!r} and {alias} is {values[alias]!r}, and both name the model: pass one"
            )
        return settings


def _is_picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # objects of others may raise anything
        return False
    return True

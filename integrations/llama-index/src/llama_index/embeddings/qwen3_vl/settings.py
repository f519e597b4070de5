"""What the embedding model and the reranker have in common, as LlamaIndex's pydantic classes."""

from __future__ import annotations

import pickle
from typing import Any

from llama_index.core.bridge.pydantic import model_validator

from qwen3vl.adapters.settings import ModelSettings


class LlamaIndexModelSettings(ModelSettings):
    """Settings of a model that loads on first use; objects with equal settings share it.

    Pickles contain the fields that can be pickled, and no model.

    Example:
        ```python
        from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding

        first = Qwen3VLEmbedding(model_name="tiny", device="cpu", model_kwargs={"max_length": 512})
        second = Qwen3VLEmbedding(model_name="tiny", device="cpu", model_kwargs={"max_length": 512})
        assert first.embedder is second.embedder
        ```
    """

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, values: Any) -> Any:
        """Drop `class_name`, which `model_dump` of LlamaIndex's classes adds."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key != "class_name"}

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


def _is_picklable(value: Any) -> bool:
    try:
        pickle.dumps(value)
    except Exception:  # objects of others may raise anything
        return False
    return True

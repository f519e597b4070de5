"""What the embedding model and the reranker have in common, as LlamaIndex's pydantic classes."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, TypeVar

from llama_index.core.bridge.pydantic import PrivateAttr, model_validator

from qwen3vl.adapters.settings import ModelSettings

if TYPE_CHECKING:
    from qwen3vl import Embedder, Reranker

ModelT = TypeVar("ModelT", "Embedder", "Reranker")


class LlamaIndexModelSettings(ModelSettings):
    """Settings of a model that loads on first use; objects with equal settings share it.

    Pickles contain the fields that can be pickled, and no model.
    """

    _model: Any = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, values: Any) -> Any:
        """Drop `class_name`, which `model_dump` of LlamaIndex's classes adds."""
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if key != "class_name"}

    def _hold(self, model: ModelT) -> ModelT:
        """Keep a model loaded while this object lives, because the registry has only a weak reference to it."""
        self._model = model
        return model

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex's method pickles every private attribute, weights included, to find out whether it can be
        # pickled, and deletes fields that cannot, such as caches with locks, from the live object.
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

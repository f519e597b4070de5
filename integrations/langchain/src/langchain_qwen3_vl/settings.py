"""What the embeddings and the reranker have in common, as LangChain's pydantic classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict

from qwen3vl.adapters.settings import ModelSettings


class LangChainModelSettings(ModelSettings):
    """Settings of a model that loads on first use; objects with equal settings share it.

    Attributes:
        show_progress: Whether to show a progress bar.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, validate_assignment=True)

    show_progress: bool = False

    def __getstate__(self) -> dict[Any, Any]:
        """Return the state without the model: the copy in another process loads its own when it needs it."""
        state: Mapping[Any, Any] = super().__getstate__()
        return {**state, "__pydantic_private__": dict.fromkeys(self.__private_attributes__)}

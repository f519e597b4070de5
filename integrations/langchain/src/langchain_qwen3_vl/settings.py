"""The settings that the embeddings and the reranker share, as LangChain's pydantic classes."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from qwen3vl.adapters.settings import ModelArguments, ModelSettings


class LangChainModelArguments(ModelArguments, total=False):
    """Keyword arguments that the embeddings and the reranker share; pydantic's mypy plugin is not needed for them.

    Without them, type checkers would reject `model_name`, which pydantic accepts as another name of `model`.
    """

    model: str
    model_name: str
    show_progress: bool


class LangChainModelSettings(ModelSettings):
    """Settings of a model that loads on first use; objects with equal settings share it.

    A pickle holds the settings without the model. The copy in another process loads its own when it needs it.

    Attributes:
        show_progress: Whether to show a progress bar.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True, validate_assignment=True)

    show_progress: bool = Field(default=False, description="Whether to show a progress bar.")

"""Fields that the bodies of several dialects have in common."""

from __future__ import annotations

from pydantic import BaseModel, Field

from qwen3vl_server.dialects.input_types import InputType


class ModelBody(BaseModel):
    """A request to a model."""

    model: str | None = Field(None, description="Name of the model, as /v1/models has it.")


class EmbeddingBody(ModelBody):
    """A request for vectors."""

    input_type: InputType | None = Field(None, description="What the inputs are for, such as query or document.")
    instruction: str | None = Field(
        None, description="Instruction for inputs without one of their own, in place of that of the input_type."
    )


class ScoringBody(ModelBody):
    """A request for scores."""

    instruction: str | None = Field(None, description="What makes a document relevant.")

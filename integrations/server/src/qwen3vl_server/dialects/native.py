"""The package's own dialect: what `Embedder` and `Reranker` return with `on_error="collect"`, and what decides it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl.errors import InputError, ItemError
from qwen3vl.recipe import Recipe
from qwen3vl.results import Batch
from qwen3vl_server.dependencies import InputValue, ServiceDependency
from qwen3vl_server.dialects.encoding import encode_base64
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.responses import AsciiJSONResponse
from qwen3vl_server.service import ServedModel

if TYPE_CHECKING:  # they import torch
    from qwen3vl.embedder import Embedder
    from qwen3vl.reranker import Reranker

log = logging.getLogger(__name__)

router = APIRouter(prefix="/qwen3vl", tags=["qwen3vl"])


class EmbedBody(BaseModel):
    """Inputs to embed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["a red circle", {"image": EXAMPLE_IMAGE}]}]})

    model: str | None = None
    inputs: list[InputValue]
    instruction: str | None = Field(None, description="Instruction for inputs without one of their own.")
    dimensions: int | None = Field(None, description="Truncate vectors to this many values.")


class ScoreDocumentsBody(BaseModel):
    """Documents to score against a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "a red circle", "documents": ["red", {"image": EXAMPLE_IMAGE}]}]}
    )

    model: str | None = None
    query: InputValue
    documents: list[InputValue]
    instruction: str | None = Field(None, description="What makes a document relevant.")


class ItemFailure(BaseModel):
    """An item without a result; `type` is the class of its cause, if the item is at fault."""

    index: int
    source: str
    reason: str
    type: str | None


class BatchAnswer(BaseModel):
    """A `qwen3vl.Batch`."""

    model: str
    shape: list[int]
    values: str = Field(description="base64 of float32, little-endian; NaN for failed items.")
    errors: list[ItemFailure]
    notices: dict[int, str]
    num_tokens: int


class EmbedAnswer(BatchAnswer):
    """Vectors, and the recipe that they have if no instruction was sent."""

    recipe: dict[str, Any]


@router.get("/models", summary="What decides vectors and scores")
async def models(service: ServiceDependency) -> dict[str, Any]:
    """Return the embedding model's recipe and the reranker's instruction and limits."""
    answer: dict[str, Any] = {}
    if served := service.models.get("embedder"):
        recipe = _recipe(served)
        answer["embedder"] = {"name": served.name, "recipe": recipe.to_dict(), "digest": recipe.digest}
    if served := service.models.get("reranker"):
        reranker = cast("Reranker", served.model)
        answer["reranker"] = {
            "name": served.name,
            "instruction": reranker.instruction,
            "max_length": reranker.engine.limits.max_length,
            "weights": reranker.engine.fingerprint,
        }
    return answer


@router.post("/embed", response_model=EmbedAnswer, summary="Embed inputs, with errors of single inputs")
async def embed(body: EmbedBody, service: ServiceDependency) -> JSONResponse:
    """Embed inputs. One that cannot be used is an error beside the vectors of the others."""
    answer = await service.embed(
        body.inputs,
        model=body.model,
        dimensions=body.dimensions,
        instruction=body.instruction,
        param="inputs",
        collect=True,
    )
    recipe = replace(_recipe(service.models["embedder"]), dimensions=answer.batch.values.shape[1])
    content = await asyncio.to_thread(_to_dict, answer.model, answer.batch)
    return AsciiJSONResponse({**content, "recipe": recipe.to_dict()})


@router.post("/score", response_model=BatchAnswer, summary="Score documents, with errors of single documents")
async def score(body: ScoreDocumentsBody, service: ServiceDependency) -> JSONResponse:
    """Score documents against a query. A document that cannot be used is an error beside the scores of the others."""
    answer = await service.score(
        body.query, body.documents, model=body.model, instruction=body.instruction, collect=True
    )
    return AsciiJSONResponse(_to_dict(answer.model, answer.batch))


def _recipe(served: ServedModel) -> Recipe:
    """Return the recipe, with the served name in place of the model's folder, which is not part of its digest."""
    return replace(cast("Embedder", served.model).recipe, model=served.name)


def _to_dict(model: str, batch: Batch) -> dict[str, Any]:
    return {
        "model": model,
        "shape": batch.values.shape,
        "values": encode_base64(batch.values),
        "errors": [_failure(error) for error in batch.errors],
        "notices": dict(batch.notices),
        "num_tokens": batch.num_tokens,
    }


def _failure(error: ItemError) -> dict[str, Any]:
    cause = error.__cause__
    if isinstance(cause, InputError):
        return {"index": error.index, "source": error.source, "reason": error.reason, "type": type(cause).__name__}
    log.error("the model failed on %s", error, exc_info=cause)
    reason = "the model failed; the log of the server says why"
    return {"index": error.index, "source": error.source, "reason": reason, "type": None}

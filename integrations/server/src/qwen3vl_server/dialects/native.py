"""The package's own dialect: what `Embedder` and `Reranker` return with `on_error="collect"`, and what decides it."""

from __future__ import annotations

import logging
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl.errors import InputError, ItemError
from qwen3vl.recipe import Recipe
from qwen3vl.results import Batch
from qwen3vl.wire import INVALID_QUERY, OTHER_RECIPE, QUERY_ROLE
from qwen3vl_server.dependencies import InputValue, ServiceDependency
from qwen3vl_server.dialects.encoding import encode_base64, write_values
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.native_request import describe_body, read_request, resolve_item
from qwen3vl_server.errors import RequestError, shorten_message
from qwen3vl_server.responses import AsciiJSONResponse
from qwen3vl_server.service import Kind, ServedModel

log = logging.getLogger(__name__)

router = APIRouter(prefix="/qwen3vl", tags=["qwen3vl"])

_DIGEST_FIELD = Field(None, description="Digest of the recipe that the model must have, as /qwen3vl/models has it.")


class EmbedBody(BaseModel):
    """Inputs to embed."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["a red circle", {"image": EXAMPLE_IMAGE}]}]})

    model: str | None = None
    inputs: list[InputValue]
    instruction: str | None = Field(None, description="Instruction for inputs without one of their own.")
    dimensions: int | None = Field(None, description="Truncate vectors to this many values.")
    digest: str | None = _DIGEST_FIELD


class ScoreDocumentsBody(BaseModel):
    """Documents to score against a query."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "a red circle", "documents": ["red", {"image": EXAMPLE_IMAGE}]}]}
    )

    model: str | None = None
    query: InputValue
    documents: list[InputValue]
    instruction: str | None = Field(None, description="What makes a document relevant.")
    digest: str | None = _DIGEST_FIELD


class ItemFailure(BaseModel):
    """An item without a result; `type` is the class of its cause, if the item is at fault."""

    index: int
    source: str
    reason: str
    type: str | None


class BatchAnswer(BaseModel):
    """A `qwen3vl.Batch`, and what decided its values."""

    model: str
    shape: list[int]
    values: str = Field(description="base64 of float32, little-endian; NaN for failed items.")
    errors: list[ItemFailure]
    notices: dict[int, str]
    num_tokens: int
    digest: str = Field(description="Digest of the model's recipe, as /qwen3vl/models has it.")


class EmbedAnswer(BatchAnswer):
    """Vectors, and the recipe that they have if no instruction was sent."""

    recipe: dict[str, Any]


class ModelDescription(BaseModel):
    """A model, and the recipe that decides its vectors or scores."""

    name: str
    recipe: dict[str, Any]
    digest: str


class Limits(BaseModel):
    """What is accepted in one request."""

    max_items: int
    max_body_bytes: int
    max_media_bytes: int = Field(description="Size of an image, PDF or video.")
    timeout_s: float


class ModelsAnswer(BaseModel):
    """The models of this server."""

    embedder: ModelDescription | None = None
    reranker: ModelDescription | None = None
    adapters: dict[Kind, dict[str, ModelDescription]] = Field(
        description="The same models with LoRA adapters, by what requests call them."
    )
    limits: Limits
    version: str = Field(description="Version of qwen3vl in the server.")


@router.get("/models", response_model_exclude_none=True, summary="What decides vectors and scores")
async def models(service: ServiceDependency) -> ModelsAnswer:
    """Return the recipes of the models, and the limits of requests."""
    described: dict[str, ModelDescription] = {}
    adapters: dict[Kind, dict[str, ModelDescription]] = {kind: {} for kind in service.models}
    for kind, served in service.all_models():
        recipe = _recipe(served)
        description = ModelDescription(name=served.name, recipe=recipe.to_dict(), digest=recipe.digest)
        if served is service.models[kind]:
            described[kind] = description
        else:
            adapters[kind][served.name] = description
    settings = service.settings
    limits = Limits(
        max_items=settings.max_items,
        max_body_bytes=settings.max_body_bytes,
        max_media_bytes=min(served.model.policy.max_bytes for _, served in service.all_models()),
        timeout_s=settings.timeout_s,
    )
    return ModelsAnswer(**described, adapters=adapters, limits=limits, version=version("qwen3vl"))


@router.post(
    "/embed",
    response_model=EmbedAnswer,
    summary="Embed inputs, with errors of single inputs",
    openapi_extra=describe_body(EmbedBody),
)
async def embed(request: Request, service: ServiceDependency) -> JSONResponse:
    """Embed inputs. One that cannot be used is an error beside the vectors of the others."""
    read = await read_request(request, EmbedBody)
    served = service.find("embedder", read.body.model)
    _check_recipe(served, read.body.digest)
    contents = read.find_contents(read.body.inputs, service.contents)
    answer = await service.embed(
        [resolve_item(item, contents) for item in read.body.inputs],
        model=read.body.model,
        dimensions=read.body.dimensions,
        instruction=read.body.instruction,
        param="inputs",
        collect=True,
    )
    recipe = _recipe(served)
    content = await write_values(answer.batch.values, _to_dict, answer.model, answer.batch, recipe)
    recipe = replace(recipe, dimensions=answer.batch.values.shape[1])
    return AsciiJSONResponse({**content, "recipe": recipe.to_dict()})


@router.post(
    "/score",
    response_model=BatchAnswer,
    summary="Score documents, with errors of single documents",
    openapi_extra=describe_body(ScoreDocumentsBody),
)
async def score(request: Request, service: ServiceDependency) -> JSONResponse:
    """Score documents against a query. A document that cannot be used is an error beside the scores of the others."""
    read = await read_request(request, ScoreDocumentsBody)
    served = service.find("reranker", read.body.model)
    _check_recipe(served, read.body.digest)
    contents = read.find_contents([read.body.query, *read.body.documents], service.contents)
    query = resolve_item(read.body.query, contents, QUERY_ROLE)
    documents = [resolve_item(document, contents) for document in read.body.documents]
    try:
        answer = await service.score(
            query, documents, model=read.body.model, instruction=read.body.instruction, collect=True
        )
    except RequestError as error:
        raise _with_failure(error) from error
    return AsciiJSONResponse(_to_dict(answer.model, answer.batch, _recipe(served)))


def _recipe(served: ServedModel) -> Recipe:
    """Return the recipe, with the served name in place of the places of model and adapter, which its digest ignores."""
    return replace(served.model.recipe, model=served.name, adapter=None)


def _check_recipe(served: ServedModel, digest: str | None) -> None:
    """Refuse a request that another model, or the same one with other settings, is meant to answer."""
    if digest not in (None, _recipe(served).digest):
        raise RequestError(
            409,
            "the model has another recipe than the request says; /qwen3vl/models has it",
            param="digest",
            code=OTHER_RECIPE,
            details={"recipe": _recipe(served).to_dict()},
        )


def _to_dict(model: str, batch: Batch, recipe: Recipe) -> dict[str, Any]:
    return {
        "model": model,
        "shape": batch.values.shape,
        "values": encode_base64(batch.values),
        "errors": [_failure(error) for error in batch.errors],
        "notices": dict(batch.notices),
        "num_tokens": batch.num_tokens,
        "digest": recipe.digest,
    }


def _failure(error: ItemError) -> dict[str, Any]:
    cause = error.__cause__
    if isinstance(cause, InputError):
        reason = shorten_message(error.reason)
        return {"index": error.index, "source": error.source, "reason": reason, "type": type(cause).__name__}
    log.error("the model failed on %s", error, exc_info=cause)
    reason = "the model failed; the log of the server says why"
    return {"index": error.index, "source": error.source, "reason": reason, "type": None}


def _with_failure(error: RequestError) -> RequestError:
    """Return the error of a request, with what an item's failure has if its query cannot be used."""
    cause = error.__cause__
    if error.param != "query" or not isinstance(cause, InputError):
        return error
    original = cause.__cause__ if isinstance(cause.__cause__, InputError) else cause
    failure = ItemFailure(index=0, source=original.source or "", reason=str(original), type=type(original).__name__)
    return RequestError(
        error.status,
        error.message,
        param=error.param,
        code=INVALID_QUERY,
        details={"failure": failure.model_dump()},
    )

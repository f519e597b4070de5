"""Cohere's `/v2/embed`, https://docs.cohere.com/reference/embed; `/v1/embed`, which LangChain's classes use.

Its `/v2/rerank` is in `rerank`.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl_server.dependencies import InputValue, RequestId, ServiceDependency
from qwen3vl_server.dialects.bodies import EmbeddingBody
from qwen3vl_server.dialects.encoding import write_rows, write_values
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.input_types import role_of
from qwen3vl_server.dialects.quantization import VectorType, check_vector_types, quantize_vectors
from qwen3vl_server.errors import RequestError
from qwen3vl_server.service import Answer, ModelService

router = APIRouter(tags=["Cohere"])

EmbeddingType = VectorType | Literal["base64"]


class EmbedByTypeBody(EmbeddingBody):
    """The body of a request for embeddings: one of `texts`, `images` and `inputs`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"texts": ["a red circle", "a blue star"], "input_type": "search_document"},
                {"images": [EXAMPLE_IMAGE], "embedding_types": ["int8", "ubinary"]},
                {
                    "inputs": [
                        {
                            "content": [
                                {"type": "text", "text": "with its caption"},
                                {"type": "image_url", "image_url": {"url": EXAMPLE_IMAGE}},
                            ]
                        }
                    ],
                    "input_type": "search_document",
                    "output_dimension": 64,
                },
            ]
        }
    )

    texts: list[str] | None = Field(None, description="A list of texts.")
    images: list[str] | None = Field(None, description="A list of images as data URIs.")
    inputs: list[InputValue] | None = Field(None, description="A list of inputs with texts and images in any mixture.")
    embedding_types: list[EmbeddingType] | None = Field(None, description="Types of the vectors; float by default.")
    output_dimension: int | None = Field(None, description="Truncate vectors to this many values.")
    truncate: Literal["NONE", "START", "END"] | None = Field(
        None,
        description="END (the default) cuts texts that are too long at their end, NONE refuses them.",
    )


class EmbeddingsByType(BaseModel):
    """The vectors in each of the types that were asked for, in the order of the inputs."""

    float_: list[list[float]] | None = Field(None, alias="float")
    int8: list[list[int]] | None = None
    uint8: list[list[int]] | None = None
    binary: list[list[int]] | None = None
    ubinary: list[list[int]] | None = None
    base64: list[str] | None = Field(None, description="base64 of float32, little-endian.")


class EmbedByTypeAnswer(BaseModel):
    """The vectors; `texts` repeats those of the request, and `meta` counts the tokens of all prompts."""

    id: str
    response_type: Literal["embeddings_by_type"] = "embeddings_by_type"
    embeddings: EmbeddingsByType
    texts: list[str] | None = None
    meta: dict[str, Any]


class EmbedFloatsAnswer(BaseModel):
    """The vectors of a request to `/v1/embed` that names no types."""

    id: str
    response_type: Literal["embeddings_floats"] = "embeddings_floats"
    embeddings: list[list[float]]
    texts: list[str]
    meta: dict[str, Any]


@router.post("/v2/embed", response_model=EmbedByTypeAnswer, summary="Embed inputs")
async def embed(body: EmbedByTypeBody, service: ServiceDependency, request_id: RequestId) -> Response:
    """Embed texts, images, videos and mixtures of them; vectors in several types."""
    return await _embed(body, service, request_id, version=2)


@router.post("/v1/embed", response_model=EmbedFloatsAnswer | EmbedByTypeAnswer, summary="Embed inputs, version 1")
async def embed_v1(body: EmbedByTypeBody, service: ServiceDependency, request_id: RequestId) -> Response:
    """Embed as `/v2/embed` does. Without `embedding_types`, the answer has a list of vectors."""
    return await _embed(body, service, request_id, version=1)


async def _embed(body: EmbedByTypeBody, service: ModelService, request_id: str, *, version: int) -> Response:
    if body.truncate == "START":
        raise RequestError(
            400, "truncate is START, and the beginning is always kept; send END or NONE", param="truncate"
        )
    types = body.embedding_types or ["float"]
    check_vector_types(types, body.output_dimension)
    param, values = _inputs(body)
    answer = await service.embed(
        values,
        model=body.model,
        dimensions=body.output_dimension,
        instruction=body.instruction,
        role=role_of(body.input_type),
        truncate=body.truncate != "NONE",
        param=param,
    )
    is_list = version == 1 and body.embedding_types is None
    head = {
        "id": request_id,
        "response_type": "embeddings_floats" if is_list else "embeddings_by_type",
        "texts": body.texts or [] if is_list else body.texts,
        "meta": {
            "api_version": {"version": str(version)},
            "billed_units": {"input_tokens": answer.batch.num_tokens},
        },
    }
    content = await write_values(answer.batch.values, _write, head, answer, None if is_list else types)
    return Response(content, media_type="application/json")


def _inputs(body: EmbedByTypeBody) -> tuple[str, list[Any]]:
    """Return the field that has the inputs, and the inputs."""
    sent: dict[str, list[Any] | None] = {
        "texts": body.texts,
        "images": None if body.images is None else [{"image": image} for image in body.images],
        "inputs": body.inputs,
    }
    found = [(param, values) for param, values in sent.items() if values is not None]
    if len(found) != 1:
        raise RequestError(400, "send one of texts, images and inputs", param="texts")
    return found[0]


def _write(head: dict[str, Any], answer: Answer, types: list[EmbeddingType] | None) -> str:
    """Write the answer, with the vectors by type, or with a list of them if there are no types."""
    if types is None:
        embeddings = _write_list(answer, "float")
    else:
        embeddings = ",".join(f'"{name}":{_write_list(answer, name)}' for name in dict.fromkeys(types))
        embeddings = f"{{{embeddings}}}"
    return f'{{"embeddings":{embeddings},{json.dumps(head)[1:]}'


def _write_list(answer: Answer, embedding_type: EmbeddingType) -> str:
    return f"[{','.join(_rows(answer, embedding_type))}]"


def _rows(answer: Answer, embedding_type: EmbeddingType) -> list[str]:
    if embedding_type == "base64":
        return write_rows(answer.batch.values, "base64")
    return write_rows(quantize_vectors(answer.batch.values, embedding_type))

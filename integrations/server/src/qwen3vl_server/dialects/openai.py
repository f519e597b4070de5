"""OpenAI's dialect, with vLLM's `messages`: `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from time import time
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl_server.dependencies import InputValues, ServiceDependency
from qwen3vl_server.dialects.encoding import encode_base64
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.usage import Usage, count_usage
from qwen3vl_server.errors import RequestError
from qwen3vl_server.service import Answer

router = APIRouter(tags=["OpenAI"])

EncodingFormat = Literal["float", "base64"]
_STARTED = int(time())
_INTEGERS_REFUSED = (
    "input has token ids (integers) in place of texts, and they are of another model's tokenizer. Send the texts; with "
    "LangChain: OpenAIEmbeddings(..., check_embedding_ctx_length=False)"
)


class EmbeddingsBody(BaseModel):
    """The body of a request for embeddings: `input`, or `messages`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input": ["a red circle", "a blue star"]},
                {
                    "input": [
                        {"image": EXAMPLE_IMAGE, "text": "with its caption"},
                        {"text": "a red circle", "instruction": "Find images that show what the text says."},
                    ],
                    "dimensions": 64,
                    "encoding_format": "base64",
                },
                {
                    "messages": [
                        {"role": "system", "content": "Represent the user's input."},
                        {
                            "role": "user",
                            "content": [
                                {"type": "image_url", "image_url": {"url": EXAMPLE_IMAGE}},
                                {"type": "text", "text": "with its caption"},
                            ],
                        },
                    ]
                },
            ]
        }
    )

    model: str | None = Field(None, description="Name of the model, as /v1/models has it.")
    input: InputValues = Field(None, description="An input, or a list of them.")
    messages: list[Any] | None = Field(None, description="A chat, which is one input, or a list of chats.")
    dimensions: int | None = Field(None, description="Truncate vectors to this many values.")
    encoding_format: EncodingFormat = Field("float", description="base64 is that of float32, little-endian.")
    instruction: str | None = Field(None, description="Instruction for inputs without one of their own.")


class Embedding(BaseModel):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    """The vectors, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class Model(BaseModel):
    """A model of this server."""

    id: str
    object: Literal["model"] = "model"
    created: int = _STARTED
    owned_by: str = "qwen3vl"
    kind: Literal["embedder", "reranker"]
    max_model_len: int


class ModelsAnswer(BaseModel):
    """The models of this server."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.post("/v1/embeddings", response_model=EmbeddingsAnswer, summary="Embed inputs")
async def embed(body: EmbeddingsBody, service: ServiceDependency) -> Response:
    """Embed texts, images, videos and mixtures of them."""
    values, param = _inputs(body)
    answer = await service.embed(
        values, model=body.model, dimensions=body.dimensions, instruction=body.instruction, param=param
    )
    # A thousand vectors take a tenth of a second to write, vector by vector, between which other threads run.
    content = await asyncio.to_thread(_to_json, answer, body.encoding_format)
    return Response(content, media_type="application/json")


@router.get("/v1/models", summary="List the models")
async def models(service: ServiceDependency) -> ModelsAnswer:
    """List the models of this server."""
    return ModelsAnswer(
        data=[
            Model(id=served.name, kind=kind, max_model_len=served.model.engine.limits.max_length)
            for kind, served in service.models.items()
        ]
    )


def _inputs(body: EmbeddingsBody) -> tuple[list[Any], str]:
    """Return the inputs of a request, and the field that has them."""
    if (body.input is None) == (body.messages is None):
        raise RequestError(400, "send either input or messages", param="input")
    if body.messages is not None:
        is_batch = all(isinstance(message, list) for message in body.messages)
        return (body.messages if is_batch else [body.messages]), "messages"
    if not isinstance(body.input, list):
        return [body.input], "input"
    if any(_are_token_ids(value) for value in (body.input, *body.input)):
        raise RequestError(400, _INTEGERS_REFUSED, param="input", code="token_ids")
    is_chat = bool(body.input) and all(isinstance(value, dict) and "role" in value for value in body.input)
    return ([body.input] if is_chat else body.input), "input"


def _are_token_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(token, int) for token in value)


def _to_json(answer: Answer, encoding_format: EncodingFormat) -> str:
    tail = json.dumps({"model": answer.model, "usage": count_usage(answer.batch.num_tokens)})
    data = ",".join(_data(answer.batch.values, encoding_format))
    return f'{{"object":"list","data":[{data}],{tail[1:]}'


def _data(vectors: NDArray[np.float32], encoding_format: EncodingFormat) -> Iterator[str]:
    for index, vector in enumerate(vectors):
        embedding = vector.tolist() if encoding_format == "float" else encode_base64(vector)
        yield json.dumps({"object": "embedding", "index": index, "embedding": embedding})

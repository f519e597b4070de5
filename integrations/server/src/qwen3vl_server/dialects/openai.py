"""OpenAI's dialect, with what vLLM, Jina and Voyage have added to it: `/v1/embeddings` and `/v1/models`."""

from __future__ import annotations

from time import time
from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from qwen3vl_server.dependencies import InputValues, ServiceDependency
from qwen3vl_server.dialects.embeddings import EmbeddingList, EmbeddingListBody, embed_values, embeddings_response
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.input_types import Task, role_of
from qwen3vl_server.dialects.usage import Usage, count_usage
from qwen3vl_server.errors import RequestError
from qwen3vl_server.inputs import parse_text_or_data_uri
from qwen3vl_server.service import Kind

router = APIRouter(tags=["OpenAI"])

_STARTED = int(time())
_INTEGERS_REFUSED = (
    "input has token ids (integers) in place of texts, and they are of another model's tokenizer. Send the texts; with "
    "LangChain: OpenAIEmbeddings(..., check_embedding_ctx_length=False)"
)


class EmbeddingsBody(EmbeddingListBody):
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

    input: InputValues = Field(None, description="An input, or a list of them.")
    messages: list[Any] | None = Field(None, description="A chat, which is one input, or a list of chats.")
    dimensions: int | None = Field(
        None,
        validation_alias=AliasChoices("dimensions", "output_dimension"),
        description="Truncate vectors to this many values.",
    )
    task: Task | None = Field(None, description="What the inputs are for, in Jina's words.")
    embedding_type: str | list[str] | None = Field(
        None, description="Jina's type of the values: float only; see encoding_format and output_dtype."
    )
    late_chunking: bool | None = Field(None, description="Jina's vectors of chunks in context: false only.")


class EmbeddingsAnswer(EmbeddingList):
    """The vectors, in the order of the inputs."""

    usage: Usage


class Model(BaseModel):
    """A name of this server; the embedding model and the reranker may have the same one."""

    id: str
    object: Literal["model"] = "model"
    created: int = _STARTED
    owned_by: str = "qwen3vl"
    kinds: list[Kind]
    max_model_len: int


class ModelsAnswer(BaseModel):
    """The models of this server."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.post("/v1/embeddings", response_model=EmbeddingsAnswer, summary="Embed inputs")
async def embed(body: EmbeddingsBody, service: ServiceDependency) -> Response:
    """Embed texts, images, videos and mixtures of them."""
    _check_jina(body)
    values, param = _inputs(body)
    role = role_of(body.input_type or body.task)
    answer = await embed_values(
        service, body, values, dimensions=body.dimensions, role=role, param=param, parse=parse_text_or_data_uri
    )
    return await embeddings_response(body, answer, count_usage(answer.batch.num_tokens))


@router.get("/v1/models", summary="List the models")
async def models(service: ServiceDependency) -> ModelsAnswer:
    """List the models of this server."""
    kinds: dict[str, list[Kind]] = {}
    for kind, served in service.all_models():
        kinds.setdefault(served.name, []).append(kind)
    return ModelsAnswer(
        data=[
            Model(
                id=name,
                kinds=kinds_of_name,
                max_model_len=min(service.find(kind, name).model.recipe.max_length for kind in kinds_of_name),
            )
            for name, kinds_of_name in kinds.items()
        ]
    )


def _check_jina(body: EmbeddingsBody) -> None:
    """Refuse what Jina's own service would answer in another way, with vectors that a client cannot tell from these."""
    types = [body.embedding_type] if isinstance(body.embedding_type, str) else body.embedding_type or []
    if any(name != "float" for name in types):
        raise RequestError(
            400,
            f"embedding_type is {', '.join(types)}, and only float is supported; send encoding_format base64 for "
            "base64, or output_dtype for smaller values",
            param="embedding_type",
        )
    if body.late_chunking:
        raise RequestError(
            400,
            "late_chunking is not supported: each input has a vector of its own; leave it out",
            param="late_chunking",
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

"""Bodies and answers of OpenAI's `/v1/embeddings` as Voyage has extended them, for the endpoints that have them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from qwen3vl.inputs import Item
from qwen3vl_server.dialects.bodies import EmbeddingBody
from qwen3vl_server.dialects.encoding import EncodingFormat, write_rows, write_values
from qwen3vl_server.dialects.quantization import VectorType, check_vector_types, quantize_vectors
from qwen3vl_server.inputs import parse_input
from qwen3vl_server.service import Answer, ModelService, Role


class EmbeddingListBody(EmbeddingBody):
    """A request for a list of vectors."""

    encoding_format: EncodingFormat | None = Field(None, description="base64 is that of the values, little-endian.")
    output_dtype: VectorType | None = Field(None, description="Type of the values; float by default.")
    truncation: bool | None = Field(None, description="Whether inputs that are too long are cut; false refuses them.")


class Embedding(BaseModel):
    """The vector of one input."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | list[int] | str


class EmbeddingList(BaseModel):
    """The vectors, in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str


async def embed_values(
    service: ModelService,
    body: EmbeddingListBody,
    values: Sequence[Any],
    *,
    dimensions: int | None,
    role: Role | None,
    param: str,
    parse: Callable[[Any], Item] = parse_input,
) -> Answer:
    """Embed the inputs of a request.

    Args:
        service: The models.
        body: The request.
        values: Its inputs.
        dimensions: How many values of each vector it asks for.
        role: What the inputs are for.
        param: The field that has the inputs.
        parse: Parses one input.

    Returns:
        The vectors.
    """
    check_vector_types([body.output_dtype or "float"], dimensions)
    return await service.embed(
        values,
        model=body.model,
        dimensions=dimensions,
        instruction=body.instruction,
        role=role,
        truncate=body.truncation is not False,
        param=param,
        parse=parse,
    )


async def embeddings_response(body: EmbeddingListBody, answer: Answer, usage: Mapping[str, Any]) -> Response:
    """Return the response with vectors.

    Args:
        body: The request.
        answer: The vectors.
        usage: The dialect's counts of tokens.

    Returns:
        An `EmbeddingList` with `usage`.
    """
    content = await write_values(answer.batch.values, _write, body, answer, usage)
    return Response(content, media_type="application/json")


def _write(body: EmbeddingListBody, answer: Answer, usage: Mapping[str, Any]) -> str:
    vectors = quantize_vectors(answer.batch.values, body.output_dtype or "float")
    rows = write_rows(vectors, body.encoding_format or "float")
    data = ",".join(f'{{"object":"embedding","index":{index},"embedding":{row}}}' for index, row in enumerate(rows))
    return f'{{"object":"list","data":[{data}],"model":{json.dumps(answer.model)},"usage":{json.dumps(usage)}}}'

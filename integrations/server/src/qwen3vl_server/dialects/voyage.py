"""Voyage's `/v1/multimodalembeddings`, https://docs.voyageai.com/reference/multimodal-embeddings-api.

Its `/v1/embeddings` is OpenAI's with a few more fields, in `openai`.
"""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl_server.dependencies import InputValue, ServiceDependency
from qwen3vl_server.dialects.embeddings import EmbeddingList, EmbeddingListBody, embed_values, embeddings_response
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.input_types import role_of

router = APIRouter(tags=["Voyage"])


class MultimodalEmbeddingsBody(EmbeddingListBody):
    """The body of a request for embeddings of texts, images and videos."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "inputs": [
                        {
                            "content": [
                                {"type": "text", "text": "with its caption"},
                                {"type": "image_base64", "image_base64": EXAMPLE_IMAGE},
                            ]
                        }
                    ],
                    "input_type": "document",
                }
            ]
        }
    )

    inputs: list[InputValue] = Field(description="A list of inputs with texts, images and videos in any mixture.")
    output_dimension: int | None = Field(None, description="Truncate vectors to this many values.")


class MultimodalUsage(BaseModel):
    """Number of tokens; those of images and videos are counted with the texts', and their pixels are not counted."""

    text_tokens: int
    image_pixels: int = 0
    video_pixels: int = 0
    total_tokens: int


class MultimodalEmbeddingsAnswer(EmbeddingList):
    """The vectors, in the order of the inputs."""

    usage: MultimodalUsage


@router.post("/v1/multimodalembeddings", response_model=MultimodalEmbeddingsAnswer, summary="Embed inputs")
async def embed(body: MultimodalEmbeddingsBody, service: ServiceDependency) -> Response:
    """Embed texts, images, videos and mixtures of them."""
    role = role_of(body.input_type)
    answer = await embed_values(service, body, body.inputs, dimensions=body.output_dimension, role=role, param="inputs")
    num_tokens = answer.batch.num_tokens
    usage = MultimodalUsage(text_tokens=num_tokens, total_tokens=num_tokens)
    return await embeddings_response(body, answer, usage.model_dump())

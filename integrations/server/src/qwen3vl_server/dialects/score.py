"""vLLM's `/score` and `/v1/score`: scores of pairs, in their order."""

from __future__ import annotations

from time import time
from typing import Literal

from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from qwen3vl_server.dependencies import InputValues, RequestId, ServiceDependency
from qwen3vl_server.dialects.bodies import ScoringBody
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.scoring import ScoringAnswer, scoring_response
from qwen3vl_server.errors import RequestError
from qwen3vl_server.inputs import as_documents
from qwen3vl_server.responses import AsciiJSONResponse

router = APIRouter(tags=["vLLM"])


class ScoreBody(ScoringBody):
    """The body of a request for scores: one query and n documents, or n of both."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"text_1": "a red circle", "text_2": ["a round red shape", "a blue star"]},
                {"queries": ["red", "blue"], "documents": ["a red circle", {"image": EXAMPLE_IMAGE}]},
            ]
        }
    )

    text_1: InputValues = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1"), description="A query, or a list of them."
    )
    text_2: InputValues = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2"),
        description="A document, or a list of them.",
    )


class Score(BaseModel):
    """The score of one pair."""

    index: int
    object: Literal["score"] = "score"
    score: float


class ScoreAnswer(ScoringAnswer):
    """The scores, in the order of the pairs."""

    object: Literal["list"] = "list"
    created: int
    data: list[Score]


@router.post("/score", response_model=ScoreAnswer, summary="Score pairs")
@router.post("/v1/score", response_model=ScoreAnswer, summary="Score pairs")
async def score(body: ScoreBody, service: ServiceDependency, request_id: RequestId) -> AsciiJSONResponse:
    """Score how well documents answer queries."""
    queries, documents = as_documents(body.text_1), as_documents(body.text_2)
    params = ("text_1", "text_2")
    if len(queries) == 1:
        answer = await service.score(
            queries[0], documents, model=body.model, instruction=body.instruction, params=params
        )
    elif len(queries) == len(documents):
        answer = await service.score_pairs(
            queries, documents, model=body.model, instruction=body.instruction, params=params
        )
    else:
        raise RequestError(
            400,
            f"there are {len(queries)} queries and {len(documents)} documents; send one query, or as many as documents",
            param="text_1",
        )
    data = [
        {"index": index, "object": "score", "score": value} for index, value in enumerate(answer.batch.values.tolist())
    ]
    return scoring_response(answer, request_id, object="list", created=int(time()), data=data)

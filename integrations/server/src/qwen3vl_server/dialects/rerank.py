"""Reranking in the dialects of Cohere, Jina and vLLM: `/rerank`, `/v1/rerank` and `/v2/rerank`."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl.results import rank_scores
from qwen3vl_server.dependencies import InputValue, InputValues, RequestId, ServiceDependency
from qwen3vl_server.dialects.bodies import ScoringBody
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.scoring import ScoringAnswer, scoring_response
from qwen3vl_server.inputs import as_documents
from qwen3vl_server.responses import AsciiJSONResponse

router = APIRouter(tags=["Cohere, Jina and vLLM"])


class RerankBody(ScoringBody):
    """The body of a request for a ranking."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "a red circle", "documents": ["a round red shape", "a blue star"], "top_n": 1},
                {
                    "query": {"image": EXAMPLE_IMAGE, "text": "the same at night"},
                    "documents": [
                        "a caption",
                        {"image": EXAMPLE_IMAGE},
                        {"content": [{"type": "image_url", "image_url": {"url": EXAMPLE_IMAGE}}]},
                    ],
                    "instruction": "Find photos of the same place.",
                },
            ]
        }
    )

    query: InputValue = Field(description="An input.")
    documents: InputValues = Field(description="A list of inputs.")
    top_n: int | None = Field(None, ge=0, description="How many documents are returned; 0 returns all, as in vLLM.")
    return_documents: bool = Field(False, description="Whether results repeat the documents.")


class RankedResult(BaseModel):
    """A document's place in the ranking; `document` only if asked for."""

    index: int
    relevance_score: float
    document: Any = None


class RerankAnswer(ScoringAnswer):
    """Documents by score, highest first."""

    results: list[RankedResult]


@router.post("/rerank", response_model=RerankAnswer, summary="Rank documents")
@router.post("/v1/rerank", response_model=RerankAnswer, summary="Rank documents")
@router.post("/v2/rerank", response_model=RerankAnswer, summary="Rank documents")
async def rerank(body: RerankBody, service: ServiceDependency, request_id: RequestId) -> AsciiJSONResponse:
    """Rank documents by how well they answer a query; both may be texts, images, videos and mixtures of them."""
    documents = as_documents(body.documents)
    answer = await service.score(body.query, documents, model=body.model, instruction=body.instruction)
    ranking = rank_scores(answer.batch)[: body.top_n or None]
    results: list[dict[str, Any]] = []
    for ranked in ranking:
        result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
        if body.return_documents:
            document = documents[ranked.index]
            result["document"] = {"text": document} if isinstance(document, str) else document
        results.append(result)
    return scoring_response(answer, request_id, results=results)

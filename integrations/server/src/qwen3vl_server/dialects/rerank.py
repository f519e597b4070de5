"""Reranking in the dialects of Cohere, Jina, vLLM and Voyage: `/rerank`, `/v1/rerank` and `/v2/rerank`.

Voyage's requests have fields of their own, which its client always sends, and its answers have `data`:
https://docs.voyageai.com/reference/reranker-api.
"""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from qwen3vl.results import rank_scores
from qwen3vl_server.dependencies import InputValue, InputValues, RequestId, ServiceDependency
from qwen3vl_server.dialects.bodies import ScoringBody
from qwen3vl_server.dialects.examples import EXAMPLE_IMAGE
from qwen3vl_server.dialects.scoring import ScoringAnswer, scoring_response
from qwen3vl_server.inputs import as_documents
from qwen3vl_server.responses import AsciiJSONResponse

router = APIRouter(tags=["Cohere, Jina, vLLM and Voyage"])


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
    top_k: int | None = Field(None, ge=1, description="Voyage's name of top_n; null returns all.")
    truncation: bool | None = Field(
        None, description="Voyage's: false refuses a query and document that are too long together."
    )

    @property
    def is_voyage(self) -> bool:
        """Whether the client expects Voyage's answer."""
        return not self.model_fields_set.isdisjoint(("top_k", "truncation"))


class RankedResult(BaseModel):
    """A document's place in the ranking; `document` only if asked for."""

    index: int
    relevance_score: float
    document: Any = None


class RerankAnswer(ScoringAnswer):
    """Documents by score, highest first."""

    results: list[RankedResult]


class RankedList(ScoringAnswer):
    """Documents by score, highest first, as Voyage has them: for requests with `top_k` or `truncation`."""

    object: Literal["list"] = "list"
    data: list[RankedResult]


@router.post("/rerank", response_model=RerankAnswer | RankedList, summary="Rank documents")
@router.post("/v1/rerank", response_model=RerankAnswer | RankedList, summary="Rank documents")
@router.post("/v2/rerank", response_model=RerankAnswer | RankedList, summary="Rank documents")
async def rerank(body: RerankBody, service: ServiceDependency, request_id: RequestId) -> AsciiJSONResponse:
    """Rank documents by how well they answer a query; both may be texts, images, videos and mixtures of them."""
    documents = as_documents(body.documents)
    answer = await service.score(
        body.query, documents, model=body.model, instruction=body.instruction, truncate=body.truncation is not False
    )
    ranking = rank_scores(answer.batch)[: body.top_n or body.top_k or None]
    results: list[dict[str, Any]] = []
    for ranked in ranking:
        result: dict[str, Any] = {"index": ranked.index, "relevance_score": ranked.score}
        if body.return_documents:
            document = documents[ranked.index]
            is_object = isinstance(document, str) and not body.is_voyage
            result["document"] = {"text": document} if is_object else document
        results.append(result)
    content = {"object": "list", "data": results} if body.is_voyage else {"results": results}
    return scoring_response(answer, request_id, **content)

"""Answers with scores: what those of `/rerank` and `/score` have in common."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from qwen3vl_server.dialects.usage import Usage, count_usage
from qwen3vl_server.responses import AsciiJSONResponse
from qwen3vl_server.service import Answer


class ScoringAnswer(BaseModel):
    """The reranker's name and counts."""

    id: str
    model: str
    usage: Usage


def scoring_response(answer: Answer, request_id: str, **content: Any) -> AsciiJSONResponse:
    """Return the response with scores.

    Args:
        answer: The scores.
        request_id: Id of the request.
        **content: The scores as the dialect writes them.

    Returns:
        A `ScoringAnswer` with the content.
    """
    usage = count_usage(answer.batch.num_tokens)
    return AsciiJSONResponse({"id": request_id, "model": answer.model, **content, "usage": usage})

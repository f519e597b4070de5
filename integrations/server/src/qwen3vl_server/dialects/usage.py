"""The counts of tokens that all dialects have in their answers."""

from __future__ import annotations

from pydantic import BaseModel


class Usage(BaseModel):
    """Number of tokens of the prompts, vision tokens included."""

    prompt_tokens: int
    total_tokens: int


def count_usage(num_tokens: int) -> dict[str, int]:
    """Return the counts of an answer.

    Args:
        num_tokens: Number of tokens of all prompts.

    Returns:
        The fields of `Usage`.
    """
    return {"prompt_tokens": num_tokens, "total_tokens": num_tokens}

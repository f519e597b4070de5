"""What inputs are for, in the words of the dialects, as the roles that have instructions of their own."""

from __future__ import annotations

from typing import Literal

from qwen3vl_server.service import Role

InputType = Literal[
    "query", "document", "passage", "search_query", "search_document", "image", "classification", "clustering"
]
"""Values of `input_type`: Voyage's, NVIDIA's and Cohere's."""
Task = Literal[
    "retrieval.query",
    "retrieval.passage",
    "code.query",
    "code.passage",
    "text-matching",
    "classification",
    "clustering",
    "separation",
]
"""Values of Jina's `task`."""

_ROLES: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "code.query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
    "image": "document",  # https://docs.cohere.com/docs/embeddings: "it will default to search_document"
    "retrieval.passage": "document",
    "code.passage": "document",
}


def role_of(input_type: InputType | Task | None) -> Role | None:
    """Return the role of a request's inputs.

    Args:
        input_type: What the request says that its inputs are for.

    Returns:
        None for classification, clustering and other comparisons among equals, and if nothing is said: these have the
        model's instruction.
    """
    return None if input_type is None else _ROLES.get(input_type)

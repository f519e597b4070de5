"""What the routes get from the application.

These functions are coroutines so that FastAPI does not call them on a thread.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from fastapi import Depends, Request
from pydantic import WithJsonSchema

from qwen3vl_server.service import ModelService


async def get_service(request: Request) -> ModelService:
    """Return the application's models.

    Args:
        request: The request.

    Returns:
        The service that `create_app` made.
    """
    service: ModelService = request.app.state.service
    return service


async def get_request_id(request: Request) -> str:
    """Return the id of a request.

    Args:
        request: The request.

    Returns:
        What the client sent as `X-Request-ID`, or a new one.
    """
    return str(request.state.request_id)


ServiceDependency: TypeAlias = Annotated[ModelService, Depends(get_service)]
RequestId: TypeAlias = Annotated[str, Depends(get_request_id)]

_INPUT_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "description": "text, image, video, instruction; or content: a list of parts"},
        {"type": "array", "description": "a chat: a list of messages"},
    ]
}
# Parsed by `qwen3vl_server.inputs`, whose errors name the item; those of a union of pydantic name every form it is not.
InputValue: TypeAlias = Annotated[Any, WithJsonSchema(_INPUT_SCHEMA)]
InputValues: TypeAlias = Annotated[
    Any, WithJsonSchema({"anyOf": [*_INPUT_SCHEMA["anyOf"], {"type": "array", "items": _INPUT_SCHEMA}]})
]

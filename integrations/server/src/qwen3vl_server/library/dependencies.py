"""What the routes of the library get from the application."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Depends, Request

from qwen3vl_server.library.failures import store_failures
from qwen3vl_server.library.library import Library


async def get_library(request: Request) -> Library:
    """Return the application's library, opened here because the lifespan of a mounted application does not run.

    Args:
        request: The request.

    Returns:
        The library that `create_app` made.
    """
    library: Library = request.app.state.library
    with store_failures():
        await library.open()
    return library


LibraryDependency: TypeAlias = Annotated[Library, Depends(get_library)]

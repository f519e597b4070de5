"""Requests that need no API key."""

from __future__ import annotations

import re

from starlette.types import Scope

from qwen3vl_server.asgi import local_path
from qwen3vl_server.library.library import Library
from qwen3vl_server.library.shapes import MEDIA_PATH
from qwen3vl_server.page.docs import is_docs
from qwen3vl_server.page.routes import is_page

_MEDIA = re.compile(re.escape(MEDIA_PATH) + "/(?P<id>[^/]+)/[a-z]+")


class OpenRequests:
    """Whether a request needs no key: it asks for a page, or for media by a signed URL.

    Args:
        library: The library; None if the server has none, and no page but that of the documentation.
    """

    def __init__(self, library: Library | None) -> None:
        self._library = library

    def __call__(self, scope: Scope) -> bool:
        """Return whether a request needs no key.

        Args:
            scope: The request's scope.

        Returns:
            True for the pages' own files, and for media whose URL is signed.
        """
        if is_docs(scope):
            return True
        if self._library is None:
            return False
        media = _MEDIA.fullmatch(local_path(scope))
        if media is None:
            return is_page(scope)
        return self._library.signer.accepts(media["id"], scope["query_string"].decode("latin-1"))

"""JSON responses."""

from __future__ import annotations

import json
from typing import Any

from fastapi.responses import JSONResponse


class AsciiJSONResponse(JSONResponse):
    """A JSON response that may repeat anything that a client sent: lone surrogates cannot be encoded as UTF-8."""

    def render(self, content: Any) -> bytes:
        """Return the body, with all characters beyond ASCII as escapes."""
        return json.dumps(content, separators=(",", ":")).encode()

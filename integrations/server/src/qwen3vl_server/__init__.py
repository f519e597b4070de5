"""A server for the models of qwen3vl, in the dialects of OpenAI, Cohere, Voyage, Jina and vLLM.

`qwen3vl serve` starts one; `create_app` makes the application, for those who mount it in their own. Names are imported
when they are first used, since `qwen3vl --help` imports this package to list its command.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qwen3vl_server.app import create_app
    from qwen3vl_server.settings import SERVER_POLICY, ServerSettings

__all__ = ["SERVER_POLICY", "ServerSettings", "create_app"]

_MODULES = {"SERVER_POLICY": "settings", "ServerSettings": "settings", "create_app": "app"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

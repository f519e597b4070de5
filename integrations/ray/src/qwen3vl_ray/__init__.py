"""qwen3vl on many machines: bulk embedding and ingestion with Ray Data.

Names are imported when they are first used, so that importing this package does not import Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__: list[str] = []

_MODULES: dict[str, str] = {}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

"""The part that `Embedder` and `Reranker` have in common: they own an engine, and release it."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from qwen3vl.engine.engine import Engine


class EngineOwner:
    """Owns an engine, and releases it by `close` or as a context manager.

    Attributes:
        engine: The model on its devices.
    """

    engine: Engine

    def close(self) -> None:
        """Release the model's memory, unless other objects use the same weights. The object cannot be used again.

        Calls that are running raise `RuntimeError`. Closing again does nothing.
        """
        self.engine.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.engine.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

"""What both backends of this process have in common: they own an engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import aclosing, closing
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, UnparsedRequest
from qwen3vl.media.policy import MediaPolicy
from qwen3vl.processing.templates import PROMPT_VERSION
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput


class LocalBackend:
    """Owns an engine, and turns its hidden states into values.

    Args:
        engine: The model on its devices.
        instruction: Instruction where neither an input nor a call has one.

    Attributes:
        engine: As above.
    """

    def __init__(self, engine: Engine, instruction: str) -> None:
        self.engine = engine
        self._instruction = instruction

    def recipe_of(self, *, max_length: int, dimensions: int, normalised: bool) -> Recipe:
        """Return the recipe of the values.

        Args:
            max_length: Maximum number of tokens of a prompt, as it is set.
            dimensions: Number of values of a vector.
            normalised: Whether they have length 1.

        Returns:
            The recipe, with the engine's model and settings.
        """
        limits, checkpoint = self.engine.limits, self.engine.checkpoint
        return Recipe(
            model=checkpoint.name,
            revision=checkpoint.revision,
            weights=self.engine.fingerprint,
            prompt_version=PROMPT_VERSION,
            instruction=self._instruction,
            max_length=max_length,
            min_pixels=limits.min_pixels,
            max_pixels=limits.max_pixels,
            total_pixels=limits.total_pixels,
            fps=limits.fps,
            max_frames=limits.max_frames,
            exif=self.engine.settings.exif,
            dimensions=dimensions,
            normalised=normalised,
            adapter=None if checkpoint.adapter is None else checkpoint.adapter.name,
        )

    @property
    def policy(self) -> MediaPolicy:
        """Which files and addresses media references may reach."""
        return self.engine.settings.policy

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.engine.closed

    def close(self) -> None:
        """Release the weights, unless other engines use them; see `Engine.close`."""
        self.engine.close()

    def to_value(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Convert the final hidden state of a prompt, (hidden_size,) float32, to a vector or a score."""
        raise NotImplementedError

    def run(self, requests: Iterable[UnparsedRequest]) -> Generator[ItemOutput]:
        """Run requests on the engine.

        Args:
            requests: Taken on the caller's thread, as they are needed.

        Yields:
            One output per request, in the order in which batches are done.
        """
        with closing(self.engine.run(requests)) as outputs:
            for output in outputs:
                yield self._with_value(output)

    async def arun(self, requests: Iterable[UnparsedRequest]) -> AsyncGenerator[ItemOutput]:
        """Run requests as `run` does; waiting occupies no thread.

        Args:
            requests: Taken on the event loop's thread, as they are needed.

        Yields:
            One output per request.
        """
        async with aclosing(self.engine.arun(requests)) as outputs:
            async for output in outputs:
                yield self._with_value(output)

    def _with_value(self, output: ItemOutput) -> ItemOutput:
        return output if output.value is None else replace(output, value=self.to_value(output.value))

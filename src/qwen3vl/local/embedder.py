"""`LocalEmbedder`: the backend of an `Embedder` whose model runs in this process."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qwen3vl.engine import Engine, UnparsedRequest
from qwen3vl.inputs import Input, Item
from qwen3vl.local.backend import LocalBackend
from qwen3vl.model.hub import resolve_checkpoint
from qwen3vl.model.kind import check_model_kind
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import (
    EMBED_INSTRUCTION,
    ControlToken,
    TextPart,
    embed_prompt,
    normalize_instruction,
)
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput, truncate_vectors
from qwen3vl.settings import EngineSettings, default_max_pixels

log = logging.getLogger(__name__)


class LocalEmbedder(LocalBackend):
    """Embeds inputs with an engine of its own.

    Args:
        model: A hub id, a local folder, or `"tiny"`.
        settings: The engine's settings.
        dimensions: Truncate vectors to this many values; None keeps all.
        instruction: Instruction for inputs that have none of their own; None is that of the official script.

    Raises:
        ModelError: The model or adapter cannot be found, downloaded or loaded, or its files say that it is a reranker.
        ValueError: A setting is out of range, or the device cannot be used.
    """

    def __init__(
        self, model: str | Path, settings: EngineSettings, *, dimensions: int | None, instruction: str | None
    ) -> None:
        limits = settings.limits(max_length=Limits.max_length, max_pixels=default_max_pixels(model))
        checkpoint = resolve_checkpoint(model, "embedding", settings.revision, settings.adapter)
        check_model_kind(checkpoint, "embedding", refuse=settings.check_model)
        super().__init__(
            Engine(checkpoint, settings, limits), normalize_instruction(instruction or "") or EMBED_INSTRUCTION
        )
        if not self.engine.tokenizer.suffix:
            log.warning(
                "the tokenizer of %s does not end prompts with a token of its own, as an embedding model's does; "
                "the model may be a reranker or a chat model",
                model,
            )
        hidden_size = self.engine.model.config.text.hidden_size
        if dimensions is not None and not 1 <= dimensions <= hidden_size:
            raise ValueError(f"dimensions is {dimensions}; it must be between 1 and {hidden_size} for this model")
        self._dimensions = dimensions or hidden_size

    @property
    def recipe(self) -> Recipe:
        """Everything that decides the vectors."""
        return self.recipe_of(max_length=self.engine.limits.max_length, dimensions=self._dimensions, normalised=True)

    def embed(self, inputs: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.embed`."""
        return self.run(self._requests(inputs, instruction))

    def aembed(self, inputs: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.aembed`."""
        return self.arun(self._requests(inputs, instruction))

    def to_value(self, state: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the vector of a hidden state."""
        return truncate_vectors(state, self._dimensions)

    def _requests(self, inputs: Iterator[Input], instruction: str) -> Iterator[UnparsedRequest]:
        to_prompt = partial(self._to_prompt, instruction)
        return (UnparsedRequest(index, value, to_prompt) for index, value in enumerate(inputs))

    def _to_prompt(self, default_instruction: str, item: Item) -> list[ControlToken | TextPart | UnsizedMedia]:
        instruction = normalize_instruction(item.instruction or "") or default_instruction
        return embed_prompt(self.engine.read_headers(item), instruction)

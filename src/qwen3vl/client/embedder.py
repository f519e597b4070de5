"""`RemoteEmbedder`: the backend of an `Embedder` whose model is in a server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from qwen3vl.client.backend import RemoteBackend
from qwen3vl.client.groups import Call
from qwen3vl.inputs import Input
from qwen3vl.processing.templates import normalize_instruction
from qwen3vl.results import ItemOutput
from qwen3vl.settings import ClientSettings


class RemoteEmbedder(RemoteBackend):
    """Embeds inputs by requests to servers.

    Args:
        urls: The servers.
        settings: Key, time limits, media policy.
        arguments: What the caller has set; see `RemoteBackend`.
        dimensions: Truncate vectors to this many values; None keeps all.
        instruction: Instruction for inputs that have none of their own; None is that of the servers.

    Raises:
        ModelError: A server has no embedding model, or not this adapter.
        RecipeError: The servers have different models or settings.
        ServerError: No server can be reached, or one refuses the key.
        ValueError: A setting is not that of the servers, or there are fewer dimensions.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: ClientSettings,
        arguments: Mapping[str, Any],
        *,
        dimensions: int | None,
        instruction: str | None,
    ) -> None:
        super().__init__(urls, settings, arguments, "embedder")
        available = self.recipe.dimensions
        if dimensions is not None and not 1 <= dimensions <= available:
            self.close()
            raise ValueError(f"dimensions is {dimensions}; it must be between 1 and {available} for this model")
        self.recipe = replace(
            self.recipe,
            dimensions=dimensions or available,
            instruction=normalize_instruction(instruction or "") or self.recipe.instruction,
        )

    def embed(self, inputs: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.embed`."""
        return self._run(self._call(instruction), inputs)

    def aembed(self, inputs: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.aembed`."""
        return self._arun(self._call(instruction), inputs)

    def _call(self, instruction: str) -> Call:
        fields: dict[str, Any] = {
            **self._model_fields,
            "instruction": instruction,
            "dimensions": self.recipe.dimensions,
        }
        return Call(path="/qwen3vl/embed", items_field="inputs", recipe=self._served_recipe, fields=fields)

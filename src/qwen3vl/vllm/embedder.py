"""`VllmEmbedder`: the backend of an `Embedder` whose model is in vLLM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from typing import Any

from qwen3vl.inputs import Input, Item
from qwen3vl.processing.geometry import Limits
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import EMBED_INSTRUCTION, PromptContent, embed_prompt, normalize_instruction
from qwen3vl.results import ItemOutput, truncate_vectors
from qwen3vl.settings import ClientSettings, EngineSettings
from qwen3vl.vllm.backend import Kind, VllmBackend
from qwen3vl.vllm.probe import Probe
from qwen3vl.vllm.prompts import Call, PromptParts
from qwen3vl.vllm.requests import EMBED


async def _check(probe: Probe, _: EngineSettings) -> int:
    return await probe.embedding_size()


def _parts_of_probe(content: PromptContent[UnsizedMedia]) -> PromptParts:
    return embed_prompt(content, EMBED_INSTRUCTION)


_KIND = Kind(EMBED, Limits.max_length, 0, _check, _parts_of_probe)


class VllmEmbedder(VllmBackend):
    """Embeds inputs by requests to vLLM's servers.

    Args:
        urls: The servers.
        settings: Key, time limits, media policy, tokenizer.
        arguments: What the caller has set; see `VllmBackend`.
        dimensions: Truncate vectors to this many values; None keeps all.
        instruction: Instruction for inputs that have none of their own; None is that of the official script.

    Raises:
        ModelError: A server has no embedding model, or there is no tokenizer for it.
        RecipeError: The servers have different models.
        ServerError: A server cannot be reached, or refuses the key.
        ValueError: A limit is out of range, or there are fewer dimensions.
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
        instruction = normalize_instruction(instruction or "") or EMBED_INSTRUCTION
        super().__init__(urls, settings, arguments, _KIND, instruction)
        available = self.recipe.dimensions
        if dimensions is not None and not 1 <= dimensions <= available:
            self.close()
            raise ValueError(f"dimensions is {dimensions}; it must be between 1 and {available} for this model")
        self.recipe = replace(self.recipe, dimensions=dimensions or available)

    def embed(self, inputs: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.embed`."""
        with closing(self._run(self._call(instruction), inputs)) as outputs:
            for output in outputs:
                yield self._truncate(output)

    async def aembed(self, inputs: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Embed inputs; see `EmbeddingBackend.aembed`."""
        async with aclosing(self._arun(self._call(instruction), inputs)) as outputs:
            async for output in outputs:
                yield self._truncate(output)

    def _call(self, instruction: str) -> Call:
        return Call(partial(self._to_parts, instruction))

    def _to_parts(self, default_instruction: str, item: Item) -> PromptParts:
        instruction = normalize_instruction(item.instruction or "") or default_instruction
        return embed_prompt(self.read_headers(item), instruction)

    def _truncate(self, output: ItemOutput) -> ItemOutput:
        """Truncate a vector here: vLLM does it only for models whose configuration allows it."""
        if output.value is None:
            return output
        return replace(output, value=truncate_vectors(output.value, self.recipe.dimensions))

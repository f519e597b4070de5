"""`VllmReranker`: the backend of a `Reranker` whose model is in vLLM."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

from qwen3vl.client.threads import in_thread
from qwen3vl.errors import query_error
from qwen3vl.inputs import Input, Item
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import (
    RERANK_INSTRUCTION,
    RERANK_MAX_LENGTH,
    RERANK_SUFFIX_TOKENS,
    PromptContent,
    rerank_prompt,
)
from qwen3vl.results import ItemOutput
from qwen3vl.settings import ClientSettings, EngineSettings
from qwen3vl.vllm.backend import Kind, VllmBackend
from qwen3vl.vllm.probe import Probe
from qwen3vl.vllm.prompts import Call, PromptParts
from qwen3vl.vllm.requests import CLASSIFY


async def _check(probe: Probe, settings: EngineSettings) -> int:
    await probe.check_scores(refuse=settings.check_model)
    return 1


def _parts_of_probe(content: PromptContent[UnsizedMedia]) -> PromptParts:
    return rerank_prompt(PromptContent(texts=("teal",)), content, RERANK_INSTRUCTION)


_KIND = Kind(CLASSIFY, RERANK_MAX_LENGTH, RERANK_SUFFIX_TOKENS, _check, _parts_of_probe)


class VllmReranker(VllmBackend):
    """Scores documents by requests to vLLM's servers.

    Args:
        urls: The servers.
        settings: Key, time limits, media policy, tokenizer.
        arguments: What the caller has set; see `VllmBackend`.
        instruction: What makes a document relevant; None is that of the official script.

    Raises:
        ModelError: A server has no reranker, or one that scores wrongly, or there is no tokenizer for it.
        RecipeError: The servers have different models.
        ServerError: A server cannot be reached, or refuses the key.
        ValueError: A limit is out of range.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: ClientSettings,
        arguments: Mapping[str, Any],
        *,
        instruction: str | None,
    ) -> None:
        super().__init__(urls, settings, arguments, _KIND, instruction or RERANK_INSTRUCTION)
        self.recipe = replace(self.recipe, normalised=False)

    def score(self, query: Item, documents: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Score documents; see `RerankingBackend.score`."""
        reading = self._transport.submit(in_thread, self._read_query, query)
        try:
            content = self._transport.result_of(reading)
        except Exception as error:
            raise self._query_error(query, error) from error
        with closing(self._run(_call(self, content, instruction), documents)) as outputs:
            for output in outputs:
                yield _with_score(output)

    async def ascore(self, query: Item, documents: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Score documents; see `RerankingBackend.ascore`."""
        reading = asyncio.wrap_future(self._transport.submit(in_thread, self._read_query, query))
        try:
            content = await self._transport.aresult_of(reading)
        except Exception as error:
            raise self._query_error(query, error) from error
        async with aclosing(self._arun(_call(self, content, instruction), documents)) as outputs:
            async for output in outputs:
                yield _with_score(output)

    def _read_query(self, query: Item) -> PromptContent[UnsizedMedia]:
        content = self.read_headers(query)
        self._maker.check_query(content)
        return content

    def _query_error(self, query: Item, error: Exception) -> Exception:
        return error if self.closed else query_error(getattr(error, "source", None) or query.name, error)


def _call(backend: VllmBackend, query: PromptContent[UnsizedMedia], instruction: str) -> Call:
    def to_parts(item: Item) -> PromptParts:
        return rerank_prompt(query, backend.read_headers(item), instruction)

    return Call(to_parts, num_query_media=len(query.images) + len(query.videos))


def _with_score(output: ItemOutput) -> ItemOutput:
    """Return the output with the only probability, () float32."""
    return output if output.value is None else replace(output, value=output.value[0])

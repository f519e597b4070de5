"""`RemoteReranker`: the backend of a `Reranker` whose model is in a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from typing import Any

from qwen3vl.client.answers import decode_query_error
from qwen3vl.client.backend import RemoteBackend
from qwen3vl.client.groups import Call
from qwen3vl.client.items import EncodedItem
from qwen3vl.client.requests import LostContentError
from qwen3vl.errors import InputError, ServerError, query_error
from qwen3vl.inputs import Input, Item
from qwen3vl.results import ItemOutput
from qwen3vl.settings import ClientSettings
from qwen3vl.wire import INVALID_QUERY, QUERY_ROLE


class RemoteReranker(RemoteBackend):
    """Scores documents by requests to servers.

    Args:
        urls: The servers.
        settings: Key, time limits, media policy.
        arguments: What the caller has set; see `RemoteBackend`.
        instruction: What makes a document relevant; None is the instruction of the servers.

    Raises:
        ModelError: A server has no reranker, or not this adapter.
        RecipeError: The servers have different models or settings.
        ServerError: No server can be reached, or one refuses the key.
        ValueError: A setting is not that of the servers.
    """

    def __init__(
        self,
        urls: Sequence[str],
        settings: ClientSettings,
        arguments: Mapping[str, Any],
        *,
        instruction: str | None,
    ) -> None:
        super().__init__(urls, settings, arguments, "reranker")
        self.recipe = replace(self.recipe, instruction=instruction or self.recipe.instruction)

    def score(self, query: Item, documents: Iterator[Input], instruction: str) -> Generator[ItemOutput]:
        """Score documents; see `RerankingBackend.score`."""
        encoding = self._transport.submit(self._sender.encode, query, QUERY_ROLE)
        try:
            encoded = self._transport.result_of(encoding)
        except Exception as error:
            if self.closed:
                raise
            raise _query_error(query, error) from error
        with _answers_to(encoded):
            yield from self._run(self._call(encoded, instruction), documents)

    async def ascore(self, query: Item, documents: Iterator[Input], instruction: str) -> AsyncGenerator[ItemOutput]:
        """Score documents; see `RerankingBackend.ascore`."""
        encoding = asyncio.wrap_future(self._transport.submit(self._sender.encode, query, QUERY_ROLE))
        try:
            encoded = await self._transport.aresult_of(encoding)
        except Exception as error:
            if self.closed:
                raise
            raise _query_error(query, error) from error
        with _answers_to(encoded):
            async with aclosing(self._arun(self._call(encoded, instruction), documents)) as outputs:
                async for output in outputs:
                    yield output

    def _call(self, query: EncodedItem, instruction: str) -> Call:
        return Call(
            path="/qwen3vl/score",
            items_field="documents",
            recipe=self._served_recipe,
            fields={**self._model_fields, "instruction": instruction},
            query=query,
        )


def _query_error(query: Item, error: Exception) -> InputError:
    return query_error(getattr(error, "source", None) or query.name, error)


@contextmanager
def _answers_to(query: EncodedItem) -> Iterator[None]:
    """Turn failures of a query that a server reports into the error that an engine in this process raises."""
    try:
        yield
    except LostContentError as error:
        raise query_error(query.name, error.reason) from error.reason
    except ServerError as error:
        if error.details.get("code") != INVALID_QUERY:
            raise
        decoded = decode_query_error(error.details["failure"], query)
        raise decoded from decoded.__cause__

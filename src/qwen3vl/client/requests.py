"""Sends the chunks of a call: encoded, in requests of bounded size, with the contents that the server does not have."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from qwen3vl.client.answers import decode_outputs
from qwen3vl.client.chunks import Chunk
from qwen3vl.client.contents import Content
from qwen3vl.client.groups import Call, Group
from qwen3vl.client.items import EncodedItem, EncodingRules, check_size, encode_item
from qwen3vl.client.threads import in_thread
from qwen3vl.client.transport import TOO_LARGE, Transport
from qwen3vl.concurrency.fork_safety import init_in_each_process
from qwen3vl.errors import PolicyError, RecipeError, ServerError
from qwen3vl.inputs import Item
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput, failed_output
from qwen3vl.wire import MEDIA_TYPE, MISSING_CONTENTS, OTHER_RECIPE, TIMED_OUT, encode_request

REQUEST_BYTES = 16 * 2**20
"""Size that requests with several items do not exceed."""
UNASKED_BYTES = 64 * 2**10
"""Size of contents that are sent along without asking whether the server has them."""


class LostContentError(Exception):
    """A content cannot be read any more."""

    def __init__(self, digest: str, reason: Exception) -> None:
        super().__init__(digest)
        self.digest = digest
        self.reason = reason


class RequestSender:
    """Sends requests to the server's own dialect. It works in the background loop.

    Args:
        transport: Sends them.
        rules: How items are encoded.
    """

    def __init__(self, transport: Transport, rules: EncodingRules) -> None:
        self._rules = rules
        self._transport = transport
        self._max_bytes = min(REQUEST_BYTES, rules.max_item_bytes)
        init_in_each_process(self)

    def init_process_state(self) -> None:
        """Forget what the process that forked is sending."""
        self._uploads: dict[str, asyncio.Future[None]] = {}
        """Contents that a request is sending, which others need not send at the same time."""

    async def encode(self, item: Item, role: str = "") -> EncodedItem:
        """Encode an item.

        Args:
            item: The item.
            role: As for `encode_item`.

        Returns:
            The encoded item.

        Raises:
            InputError: An image or video cannot be read.
        """
        if not (item.images or item.videos):
            return encode_item(item, self._rules, role)
        return await in_thread(encode_item, item, self._rules, role)

    async def send_chunk(self, call: Call, chunk: Chunk) -> list[ItemOutput]:
        """Send a chunk in one or several requests.

        Args:
            call: What the requests have in common.
            chunk: The items.

        Returns:
            An output for each item, in their order.

        Raises:
            LostContentError: A content of the query cannot be read any more.
            RecipeError: A server has another model.
            ServerError: The servers cannot be reached, or refuse the request.
        """
        outputs: list[ItemOutput] = []
        group = Group(call)
        for index, item in chunk:
            if isinstance(item, ItemOutput):
                outputs.append(item)
                continue
            try:
                encoded = await self.encode(item)
                check_size(Group(call).size_with(encoded), self._rules)
            except Exception as error:  # whatever fails in one item must not stop the others
                outputs.append(failed_output(index, getattr(error, "source", None) or item.name, error))
                continue
            if group.size_with(encoded) > self._max_bytes:
                outputs += await self._send(group)
                group = Group(call)
            group.add(index, encoded)
        outputs += await self._send(group)
        return sorted(outputs, key=lambda output: output.index)

    async def _send(self, group: Group) -> list[ItemOutput]:
        """Send a group.

        Items whose contents cannot be read any more fail, and the others are sent. A group that takes the server too
        long, or is too large for a proxy before it, is sent in halves; an item that is too large alone fails.
        """
        failed: list[ItemOutput] = []
        while group.items:
            try:
                return [*failed, *await self._request(group)]
            except ServerError as error:
                is_too_large = error.status == TOO_LARGE
                if len(group.items) == 1 and is_too_large:
                    return [*failed, failed_output(group.indices[0], group.items[0].name, PolicyError(str(error)))]
                if len(group.items) == 1 or not (is_too_large or error.details.get("code") == TIMED_OUT):
                    raise
                if is_too_large:  # what comes next need not be refused first
                    self._max_bytes = min(self._max_bytes, group.size // 2)
                first, second = group.halves()
                return [*failed, *await self._send(first), *await self._send(second)]
            except LostContentError as lost:
                query = group.call.query
                if query is not None and lost.digest in query.contents:
                    raise
                remaining = Group(group.call)
                for index, item in zip(group.indices, group.items, strict=True):
                    if lost.digest in item.contents:
                        failed.append(failed_output(index, item.name, lost.reason))
                    else:
                        remaining.add(index, item)
                group = remaining
        return failed

    async def _request(self, group: Group) -> list[ItemOutput]:
        """Send a group in one request, again with further contents each time that the server misses some."""
        body, contents = group.body(), group.contents
        attached = set(contents) if sum(content.size for content in contents.values()) <= UNASKED_BYTES else set()
        while True:
            try:
                with self._uploading(attached):
                    attachments = await _load({digest: contents[digest] for digest in attached})
                    request = encode_request(body, attachments)
                    answer = await self._transport.request(group.call.path, request, MEDIA_TYPE)
                return decode_outputs(answer, group)
            except ServerError as error:
                if error.details.get("code") == OTHER_RECIPE:
                    raise _recipe_error(group.call.recipe, error) from error
                missing = set(error.details.get("missing") or ()) & contents.keys() - attached
                if error.details.get("code") != MISSING_CONTENTS or not missing:
                    raise
            if uploads := [self._uploads[digest] for digest in missing if digest in self._uploads]:
                await asyncio.wait(uploads)
            else:
                attached |= missing

    @contextmanager
    def _uploading(self, digests: set[str]) -> Iterator[None]:
        """Return a context in which other requests that lack these contents wait instead of sending them too."""
        done = asyncio.get_running_loop().create_future()
        own = [digest for digest in digests if self._uploads.setdefault(digest, done) is done]
        try:
            yield
        finally:
            for digest in own:
                del self._uploads[digest]
            done.set_result(None)


def _recipe_error(recipe: Recipe, error: ServerError) -> RecipeError:
    differences = recipe.describe_differences(Recipe.from_dict(error.details["recipe"]))
    return RecipeError(
        f"{error}: {differences}. Give all servers the same model and settings, and create a new Embedder or Reranker "
        "after changes"
    )


async def _load(contents: Mapping[str, Content]) -> list[bytes]:
    """Read contents.

    Args:
        contents: The contents by their digests.

    Returns:
        Their bytes.

    Raises:
        LostContentError: One cannot be read any more.
    """
    return await in_thread(_load_all, contents) if contents else []


def _load_all(contents: Mapping[str, Content]) -> list[bytes]:
    loaded = []
    for digest, content in contents.items():
        try:
            loaded.append(content.load())
        except Exception as error:
            raise LostContentError(digest, error) from error
    return loaded

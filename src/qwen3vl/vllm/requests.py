"""Requests to vLLM: prompts in, vectors or scores out."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3vl.client.chunks import Chunk
from qwen3vl.client.threads import in_thread
from qwen3vl.client.transport import TOO_LARGE, Transport
from qwen3vl.errors import InputError, PolicyError, ServerError
from qwen3vl.inputs import Item
from qwen3vl.results import ItemOutput, failed_output
from qwen3vl.vllm.prompts import Call, PromptMaker, VllmPrompt
from qwen3vl.wire import decode_array

log = logging.getLogger(__name__)

MEDIA_REQUESTS = 4
"""Maximum number of prompts with media of a chunk that are decoded, sent or answered at once."""
_REFUSED = (400, 422)
"""Statuses of an answer that finds fault with the request."""

Value = NDArray[np.float32]
_Request = tuple[int, Item, VllmPrompt]
"""The index of an item, the item, and its prompt."""


@dataclass(frozen=True, slots=True)
class Task:
    """What vLLM is asked for.

    Attributes:
        path: Where the requests are sent.
        fields: Fields of each request, besides the prompts.
        decode: Decodes an entry of the answer.
    """

    path: str
    fields: Mapping[str, Any]
    decode: Callable[[Mapping[str, Any]], Value]


def _decode_vector(entry: Mapping[str, Any]) -> Value:
    return decode_array(entry["embedding"], (-1,))


def _decode_score(entry: Mapping[str, Any]) -> Value:
    return np.asarray(entry["probs"], dtype=np.float32)


EMBED = Task("/v1/embeddings", {"encoding_format": "base64"}, _decode_vector)
"""Vectors of length 1, (hidden_size,) float32."""
CLASSIFY = Task("/classify", {"use_activation": True}, _decode_score)
"""Probabilities of the classes, (num_classes,) float32: of a reranker with one, that of "yes"."""


async def ask(transport: Transport, model: str, task: Task, prompts: Sequence[VllmPrompt]) -> list[Value]:
    """Send prompts in one request.

    Args:
        transport: Sends it.
        model: Name of the model.
        task: What is asked for.
        prompts: Prompts of texts, or one prompt with media.

    Returns:
        A value for each prompt.

    Raises:
        InputError: vLLM made another number of tokens of a prompt with media.
        ServerError: No server can be reached, it refuses the request, or its answer cannot be used.
    """
    fields = prompts[0].fields
    if fields is None:
        fields = {"input": [prompt.ids for prompt in prompts]}
    body = json.dumps({"model": model, **task.fields, **fields}, separators=(",", ":"))
    answer = await transport.request(task.path, body.encode(), "application/json")
    try:
        entries = sorted(answer["data"], key=lambda entry: int(entry["index"]))
        values = [task.decode(entry) for entry in entries]
        num_tokens = int(answer["usage"]["prompt_tokens"])
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"the answer of vLLM to {task.path} cannot be read ({type(error).__name__}: {error}); its version may be "
            "too old"
        ) from error
    expected = sum(len(prompt.ids) for prompt in prompts)
    if num_tokens != expected or len(values) != len(prompts):
        message = f"vLLM counts {num_tokens} tokens where this package counts {expected}"
        if prompts[0].fields is None:
            raise ServerError(f"{message}: it changes prompts that are token ids")
        raise InputError(
            f"{message}: it resizes images of this size. Start it with --trust-request-mm-kwargs, so that "
            "requests can forbid that, or set max_pixels to what the model's preprocessor_config.json allows"
        )
    return values


class PromptSender:
    """Sends the chunks of a call. It works in the background loop.

    Args:
        transport: Sends requests.
        model: Name of the model.
        task: What is asked for.
        maker: Makes prompts.
    """

    def __init__(self, transport: Transport, model: str, task: Task, maker: PromptMaker) -> None:
        self._transport = transport
        self._model = model
        self._task = task
        self._maker = maker

    async def send_chunk(self, call: Call, chunk: Chunk) -> list[ItemOutput]:
        """Send a chunk: its texts in one request, and each item with media in one of its own.

        Args:
            call: The call.
            chunk: The items.

        Returns:
            An output for each item, in their order.

        Raises:
            ServerError: No server can be reached, or it refuses a request of texts.
        """
        outputs = [item for _, item in chunk if isinstance(item, ItemOutput)]
        items = [(index, item) for index, item in chunk if isinstance(item, Item)]
        slots = asyncio.Semaphore(MEDIA_REQUESTS)
        texts = [(index, item) for index, item in items if not (_has_media(item) or call.num_query_media)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._send_texts(call, texts))] if texts else []
                for index, item in items:
                    if _has_media(item) or call.num_query_media:
                        tasks.append(group.create_task(self._send_media(call, index, item, slots)))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        outputs += [output for task in tasks for output in task.result()]
        return sorted(outputs, key=lambda output: output.index)

    async def _send_texts(self, call: Call, items: Sequence[tuple[int, Item]]) -> list[ItemOutput]:
        made = await in_thread(lambda: [self._make(call, index, item) for index, item in items])
        outputs = [prompt for prompt in made if isinstance(prompt, ItemOutput)]
        sent: list[_Request] = [
            (index, item, prompt)
            for (index, item), prompt in zip(items, made, strict=True)
            if isinstance(prompt, VllmPrompt)
        ]
        return outputs + await self._ask(sent) if sent else outputs

    async def _ask(self, sent: Sequence[_Request]) -> list[ItemOutput]:
        """Send prompts in one request, or in several if a proxy before vLLM accepts smaller bodies only."""
        try:
            values = await ask(self._transport, self._model, self._task, [prompt for *_, prompt in sent])
        except ServerError as error:
            if error.status != TOO_LARGE:
                raise
            if len(sent) == 1:
                ((index, item, _),) = sent
                return [failed_output(index, item.name, PolicyError(str(error)))]
            middle = len(sent) // 2
            return [*await self._ask(sent[:middle]), *await self._ask(sent[middle:])]
        return [_output(*request, value) for request, value in zip(sent, values, strict=True)]

    async def _send_media(self, call: Call, index: int, item: Item, slots: asyncio.Semaphore) -> list[ItemOutput]:
        async with slots:
            prompt = await in_thread(self._make, call, index, item)
            if isinstance(prompt, ItemOutput):
                return [prompt]
            try:
                return await self._ask([(index, item, prompt)])
            except InputError as error:
                return [failed_output(index, item.name, error)]
            except ServerError as error:
                if error.status not in _REFUSED or not error.details:  # not vLLM's own answer
                    raise
                return [failed_output(index, item.name, InputError(str(error)))]

    def _make(self, call: Call, index: int, item: Item) -> VllmPrompt | ItemOutput:
        try:
            prompt = self._maker.make(call, item)
        except Exception as error:  # whatever fails in one item must not stop the others
            return failed_output(index, getattr(error, "source", None) or item.name, error)
        if prompt.notice:
            log.warning("item %d (%s): %s", index, item.name, prompt.notice)
        return prompt


def _has_media(item: Item) -> bool:
    return bool(item.images or item.videos)


def _output(index: int, item: Item, prompt: VllmPrompt, value: Value) -> ItemOutput:
    if not np.isfinite(value).all():
        return failed_output(index, item.name, InputError("vLLM gives values for it that are not finite"))
    return ItemOutput(index, value, notice=prompt.notice, num_tokens=len(prompt.ids))

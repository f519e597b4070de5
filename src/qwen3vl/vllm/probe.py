"""What a vLLM server is asked when it is connected: whether it does what this package does."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from qwen3vl.client.threads import in_thread
from qwen3vl.client.transport import Transport
from qwen3vl.errors import InputError, ModelError, ServerError
from qwen3vl.inputs import Item, as_item
from qwen3vl.processing.fitting import fit
from qwen3vl.processing.templates import (
    EMBED_INSTRUCTION,
    RERANK_INSTRUCTION,
    PromptContent,
    TextPart,
    embed_prompt,
    rerank_prompt,
)
from qwen3vl.processing.tokenizer import Tokenizer
from qwen3vl.vllm.prompts import Call, PromptMaker, PromptParts, Refusals, VllmPrompt
from qwen3vl.vllm.requests import CLASSIFY, EMBED, Task, Value, ask

log = logging.getLogger(__name__)

RERANKER_OPTIONS = (
    '--runner pooling --hf-overrides \'{"architectures": ["Qwen3VLForSequenceClassification"], '
    '"classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}\''
)
"""What vLLM needs to load a reranker."""
_QUERY = "What is the capital of France?"
_RELEVANT, _IRRELEVANT = "Paris is the capital of France.", "Bananas are rich in potassium."
_TEXTS = ("Grüße, 世界!\n\nA list:", "1. one\n 2. two")
"""Joined by a line feed, as some templates do, they would have other tokens."""
_SIDE = 512
"""Pixels along each side of the image: within the limits that any server has."""
_NORM_TOLERANCE = 0.01
"""Difference of a vector's length from 1 that half precision explains."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model that a server has.

    Attributes:
        name: Its name in requests.
        root: The name under which vLLM has loaded it: a hub id or a folder.
        max_length: Maximum number of tokens of a prompt.
    """

    name: str
    root: str
    max_length: int


async def read_model(transport: Transport) -> ServedModel:
    """Ask a server which model it has.

    Args:
        transport: Reaches this server only.

    Returns:
        The model.

    Raises:
        ServerError: The server cannot be reached, or is none of vLLM's.
    """
    (answer,) = (await transport.describe_servers("/v1/models")).values()
    try:
        entry = answer["data"][0]
        return ServedModel(str(entry["id"]), str(entry["root"]), int(entry["max_model_len"]))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ServerError(
            f"{transport.urls[0]} is no vLLM server: /v1/models does not describe a model as vLLM does "
            f"({type(error).__name__}: {error}). Write http://… instead of vllm+http://… for `qwen3vl serve`"
        ) from error


class Probe:
    """Compares what a server does with what this package does.

    Args:
        transport: Reaches this server only.
        model: Its model.
        tokenizer: The tokenizer that it should have.
    """

    def __init__(self, transport: Transport, model: ServedModel, tokenizer: Tokenizer) -> None:
        self._transport = transport
        self._model = model
        self._tokenizer = tokenizer
        self._url = transport.urls[0]

    async def check_tokenizer(self) -> None:
        """Compare a text's token ids.

        Raises:
            ModelError: They differ.
        """
        text = "".join(_TEXTS)
        theirs = await self._tokenize({"prompt": text, "add_special_tokens": True})
        if theirs != [*self._tokenizer.encode_text([TextPart(text)])[0], *self._tokenizer.suffix]:
            raise ModelError(
                f"the tokenizer is not that of {self._model.root}, which {self._url} serves: a text has other tokens. "
                "Pass the folder or hub id of the same model as tokenizer"
            )

    async def embedding_size(self) -> int:
        """Embed two texts.

        Returns:
            Number of values of a vector.

        Raises:
            ModelError: The server has no embedding model, pools other tokens than the last, or returns values that
                are not finite.
        """
        first, second = await self._ask(
            EMBED, [embed_prompt(PromptContent(texts=(text,)), EMBED_INSTRUCTION) for text in (_RELEVANT, _IRRELEVANT)]
        )
        if not np.isfinite([first, second]).all():
            raise ModelError(f"{self._url} returns vectors that are not finite: start vLLM with another --dtype")
        if abs(float(np.linalg.norm(first)) - 1) > _NORM_TOLERANCE or np.allclose(first, second, atol=1e-6):
            raise ModelError(
                f"{self._url} does not return the normalized vector of the last token: start vLLM without "
                "--pooler-config"
            )
        return len(first)

    async def check_scores(self, *, refuse: bool) -> None:
        """Score a query with a document that answers it and one that does not, and both pairs exchanged.

        Args:
            refuse: Whether a model that prefers the wrong document is an error; otherwise it is a warning in the log.

        Raises:
            ModelError: The server has no reranker, or it does not read query and document together.
        """
        pairs = [(_QUERY, _RELEVANT), (_QUERY, _IRRELEVANT), (_RELEVANT, _QUERY), (_IRRELEVANT, _QUERY)]
        scores = await self._ask(
            CLASSIFY,
            [rerank_prompt(PromptContent(texts=(q,)), PromptContent(texts=(d,)), RERANK_INSTRUCTION) for q, d in pairs],
        )
        if any(score.shape != (1,) for score in scores):
            raise ModelError(
                f"{self._url} has a classifier of {scores[0].size} classes, and a reranker has one: start vLLM with "
                f"{RERANKER_OPTIONS}"
            )
        relevant, irrelevant, *exchanged = (float(score[0]) for score in scores)
        in_range = all(0 <= score <= 1 for score in (relevant, irrelevant))
        if not in_range or np.allclose((relevant, irrelevant), exchanged, rtol=0, atol=1e-7):
            raise ModelError(
                f"{self._url} gives two pairs the scores {relevant:g} and {irrelevant:g}, and with query and document "
                f"exchanged {exchanged[0]:g} and {exchanged[1]:g}: it is no reranker that reads both together. Start "
                f"vLLM with {RERANKER_OPTIONS}"
            )
        if relevant > irrelevant:
            return
        message = (
            f"{self._url} scores {_RELEVANT!r} as an answer to {_QUERY!r} {relevant:g}, and {_IRRELEVANT!r} "
            f"{irrelevant:g}: its classes may be exchanged. Start vLLM with {RERANKER_OPTIONS}"
        )
        if refuse:
            raise ModelError(f"{message}; for a model that was trained otherwise, pass check_model=False")
        log.warning("%s", message)

    async def find_refusals(self, to_parts: Callable[[Item], PromptParts]) -> Refusals:
        """Compare the token ids of prompts with media.

        Args:
            to_parts: As `Call.to_parts`.

        Returns:
            What the server cannot be sent.

        Raises:
            ServerError: The server cannot be reached any more.
        """
        image = as_item({"image": Image.new("RGB", (_SIDE, _SIDE), "teal"), "text": list(_TEXTS)})
        sizes = await self._find_difference(to_parts, image, Refusals())
        if sizes and (images := await self._find_difference(to_parts, image, Refusals(sizes=sizes))):
            return Refusals(images=f"vLLM cannot be sent images: {images}", videos=images, sizes=sizes)
        frames = [Image.new("RGB", (_SIDE, _SIDE), colour) for colour in ("teal", "navy", "olive", "teal")]
        video = as_item({"video": frames, "text": list(_TEXTS)})
        videos = await self._find_difference(to_parts, video, Refusals(sizes=sizes))
        return Refusals(videos=videos and f"vLLM cannot be sent videos: {videos}", sizes=sizes)

    async def _find_difference(
        self, to_parts: Callable[[Item], PromptParts], item: Item, refusals: Refusals
    ) -> str | None:
        """Return why an item's prompt is another one in vLLM; None if it is the same."""
        maker = PromptMaker(self._tokenizer, self._model.max_length, refusals)
        try:
            prompt = await in_thread(maker.make, Call(to_parts), item)
            theirs = await self._tokenize(prompt.fields or {})
        except (InputError, ServerError) as error:
            # A server that is down says nothing of what it can do.
            if isinstance(error, ServerError) and error.status is None:
                raise
            return str(error)
        except ModuleNotFoundError as error:
            return f"their frames are resized with {error.name}, which is not installed: install qwen3vl[torch]"
        if theirs == prompt.ids:
            return None
        return (
            f"a message that {self._url} renders has other tokens than it should have ({len(theirs)}, not "
            f"{len(prompt.ids)}); see docs/vllm.md for the --chat-template that vLLM needs"
        )

    async def _tokenize(self, fields: Mapping[str, Any]) -> list[int]:
        body = json.dumps({"model": self._model.name, **fields}).encode()
        answer = await self._transport.request("/tokenize", body, "application/json")
        tokens = answer.get("tokens") if isinstance(answer, Mapping) else None
        if not isinstance(tokens, list):
            raise ServerError(
                f"{self._url} answers /tokenize without the tokens, so that it cannot be checked how it renders "
                "messages: is it vLLM's server, and a recent one?"
            )
        return tokens

    async def _ask(self, task: Task, parts: Sequence[PromptParts]) -> list[Value]:
        """Send prompts of texts; raise `ModelError` if the server does not do what is asked."""
        fitted = [fit(prompt, self._tokenizer, self._model.max_length) for prompt in parts]
        prompts = [VllmPrompt(prompt.prompt.ids.tolist(), prompt.notice) for prompt in fitted]
        try:
            return await ask(self._transport, self._model.name, task, prompts)
        except ServerError as error:
            if error.status not in (400, 404, 501):
                raise
            need, options = (
                ("n embedding model", "--runner pooling") if task is EMBED else (" reranker", RERANKER_OPTIONS)
            )
            raise ModelError(
                f"{self._url} has not loaded {self._model.root} as a{need}: {task.path} is answered with status "
                f"{error.status}. Start vLLM with {options}"
            ) from error

"""Prompts as vLLM takes them: token ids, or chat messages that it renders to the same ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from qwen3vl.errors import InputError
from qwen3vl.inputs import Item
from qwen3vl.processing.fitting import FittedPrompt, fit
from qwen3vl.processing.sizing import UnsizedMedia
from qwen3vl.processing.templates import ControlToken, PromptContent, TextPart, timestamp_text
from qwen3vl.processing.tokenizer import Tokenizer
from qwen3vl.vllm.media import KEEP_SIZES, Urls, encode_media, frame_times

PromptParts = Sequence[ControlToken | TextPart | UnsizedMedia]
"""A prompt, as `embed_prompt` and `rerank_prompt` return it."""


@dataclass(frozen=True, slots=True, eq=False)
class VllmPrompt:
    """A prompt as it is sent.

    Attributes:
        ids: Token ids, those of images and videos included.
        notice: What was shrunk or truncated to fit `max_length`; empty if nothing.
        fields: The fields of the request that have the prompt, if it has media; texts are sent as `ids`.
    """

    ids: list[int]
    notice: str
    fields: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What the prompts of a call have in common.

    Attributes:
        to_parts: Reads the headers of an item's media, and returns its prompt.
        num_query_media: Number of images and videos of the query, which come first in each prompt. They are encoded
            once.
        query_urls: What they were encoded to.
    """

    to_parts: Callable[[Item], PromptParts]
    num_query_media: int = 0
    query_urls: Urls = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusals:
    """Why a server cannot be sent prompts with media; None where it can.

    Attributes:
        images: Why none with images.
        videos: Why none with videos.
        sizes: Why it takes no options that keep the sizes of images, so that it may resize some.
    """

    images: str | None = None
    videos: str | None = None
    sizes: str | None = None

    def combine(self, other: Refusals) -> Refusals:
        """Combine the refusals of two servers, of which either may get a prompt.

        Args:
            other: The refusals of the other server.

        Returns:
            What cannot be sent to both.
        """
        return Refusals(self.images or other.images, self.videos or other.videos, self.sizes or other.sizes)


class PromptMaker:
    """Makes prompts. Thread-safe.

    Args:
        tokenizer: The tokenizer of the model that vLLM serves.
        max_length: Maximum number of tokens of a prompt.
        refusals: What the server cannot be sent.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, refusals: Refusals) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._refusals = refusals

    def check_query(self, content: PromptContent[UnsizedMedia]) -> None:
        """Check that the server can be sent a query.

        Args:
            content: The query.

        Raises:
            InputError: It cannot.
        """
        if refusal := self._refusal([frame_times(medium) for medium in (*content.videos, *content.images)]):
            raise InputError(refusal)

    def make(self, call: Call, item: Item) -> VllmPrompt:
        """Make the prompt of an item. With media this blocks, since they are read and decoded.

        Args:
            call: The call.
            item: The item.

        Returns:
            Its prompt.

        Raises:
            InputError: A medium cannot be read, the prompt is too long, or vLLM would make another prompt of it.
        """
        parts = call.to_parts(item)
        media = [part for part in parts if not isinstance(part, (ControlToken, TextPart))]
        times = [frame_times(medium) for medium in media]
        if refusal := self._refusal(times):
            raise InputError(refusal)
        fitted = fit(parts, self._tokenizer, self._max_length)
        ids = fitted.prompt.ids.tolist()
        if not media:
            return VllmPrompt(ids, fitted.notice)
        self._check_rendering(parts, fitted)
        encoded = iter(
            encode_media(sized, call.query_urls, keep=index < call.num_query_media)
            for index, sized in enumerate(fitted.media)
        )
        fields = chat_fields([part if isinstance(part, (ControlToken, TextPart)) else next(encoded) for part in parts])
        if self._refusals.sizes is None:
            fields |= KEEP_SIZES
        if video_times := next(filter(None, times), None):
            fields["media_io_kwargs"] = {"video": video_times}
        return VllmPrompt(ids, fitted.notice, fields)

    def _refusal(self, times: Sequence[dict[str, Any] | None]) -> str | None:
        """Return why vLLM cannot be sent an item with such media."""
        if times and self._refusals.images:
            return self._refusals.images
        videos = [video for video in times if video is not None]
        if videos and self._refusals.videos:
            return self._refusals.videos
        if any(video != videos[0] for video in videos):
            return (
                "vLLM takes one frame rate and one choice of frames for all videos of a prompt, and here they differ; "
                "embed the videos one by one, or use `qwen3vl serve`"
            )
        return None

    def _check_rendering(self, parts: PromptParts, fitted: FittedPrompt) -> None:
        """Raise `InputError` if vLLM would render the messages of this prompt to other tokens than ours."""
        if fitted.num_truncated_tokens:
            raise InputError(
                f"{fitted.notice}, which cannot be done through vLLM beside images and videos: shorten the text, or "
                "send fewer or smaller media"
            )
        text, media = "", iter(fitted.media)
        for part in parts:
            if isinstance(part, ControlToken):
                text = ""
            elif isinstance(part, TextPart):
                text += part.text
                if token := self._tokenizer.find_control_token(part.text):
                    raise InputError(
                        f"its text has {token}, which vLLM takes for a control token where there are images or videos, "
                        "and this package does not: remove it from the text"
                    )
            else:
                self._check_timestamps(text, frame_times(part), next(media).vision.timestamps)
                text = ""

    def _check_timestamps(self, before: str, times: dict[str, Any] | None, timestamps: Sequence[float]) -> None:
        """Check what vLLM writes before frame pairs: by another formula, and tokenized apart from the text before."""
        if times is None:
            return
        seconds = [index / times["fps"] for index in times["frames_indices"]]
        theirs = [
            timestamp_text((first + second) / 2) for first, second in zip(seconds[::2], seconds[1::2], strict=True)
        ]
        ours = list(map(timestamp_text, timestamps))
        if ours != theirs or self._encode(before + ours[0]) != self._encode(before) + self._encode(ours[0]):
            raise InputError("vLLM writes the times of its video's frames in other tokens; use `qwen3vl serve`")

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode_text([TextPart(text)])[0]


def chat_fields(parts: Sequence[ControlToken | TextPart | dict[str, Any]]) -> dict[str, Any]:
    """Return the fields of a request whose messages the checkpoint's chat template renders to a prompt.

    Args:
        parts: The prompt, with the parts of messages in place of its media.

    Returns:
        `messages`, and what adds the tokens that end a prompt.
    """
    turns: list[list[TextPart | dict[str, Any]]] = []
    for part in parts:
        if not isinstance(part, ControlToken):
            turns[-1].append(part)
        elif part.name == "<|im_start|>":
            turns.append([])
        else:
            turns[-1].append({})  # the end of the message; a line feed follows
    return {
        "messages": [_message(turn[: turn.index({})]) for turn in turns[:-1]],
        "add_generation_prompt": True,  # the last turn
        "add_special_tokens": True,  # that of embedding models; vLLM's default for messages leaves it out
    }


def _message(turn: Sequence[TextPart | dict[str, Any]]) -> dict[str, Any]:
    head, *rest = turn
    assert isinstance(head, TextPart)  # noqa: S101 (for mypy: all turns start with their role)
    role, _, text = head.text.partition("\n")
    contents = [TextPart(text), *rest] if text else rest
    return {
        "role": role,
        "content": [{"type": "text", "text": part.text} if isinstance(part, TextPart) else part for part in contents],
    }

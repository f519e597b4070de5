"""The prompt templates of the embedding and the reranking models, as lists of parts.

A prompt is a list of parts: control tokens, text, images and videos. Only the control tokens placed here act as
control tokens; whatever a caller's text contains is tokenized as ordinary text. The templates are those of
QwenLM/Qwen3-VL-Embedding: `src/models/qwen3_vl_embedding.py` and `src/models/qwen3_vl_reranker.py`, with the chat
template of the checkpoints.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from qwen3vl.types import Grid

EMBED_INSTRUCTION = "Represent the user's input."
"""Default instruction of the official embedding script."""
RERANK_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
"""Default instruction of the official reranking script."""
RERANK_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
"""System message of the official reranking script."""
RERANK_MAX_LENGTH = 10240
"""Maximum tokens of a prompt in the official reranking script."""
RERANK_SUFFIX_TOKENS = 5
"""Tokens that end a reranking prompt. The official script adds them after it has truncated to its `max_length`."""
PROMPT_VERSION = 1
"""Part of every recipe. Increase it when a change here changes the tokens of an input."""


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A control token.

    Attributes:
        name: As `tokenizer.json` writes it, such as `<|im_start|>`.
    """

    name: str


@dataclass(frozen=True, slots=True)
class TextPart:
    """A text within a prompt. Adjacent texts are tokenized together.

    Attributes:
        text: The text.
        truncatable: Whether its end may be cut where the prompt is too long. True for the caller's texts.
    """

    text: str
    truncatable: bool = False


@dataclass(frozen=True, slots=True)
class VisionPart:
    """An image or video whose size is known.

    Attributes:
        key: Identifies the media and its size: parts with equal keys show the same pixels.
        grid: Size in patches.
        timestamps: The time of each frame pair of a video in seconds; empty for an image.
    """

    key: Hashable
    grid: Grid
    timestamps: tuple[float, ...] = ()


PromptPart = ControlToken | TextPart | VisionPart
"""A part of a prompt that can be tokenized."""

Media_co = TypeVar("Media_co", covariant=True)
"""`VisionPart`, or what becomes one when the sizes of media are resolved."""

_START, _END = ControlToken("<|im_start|>"), ControlToken("<|im_end|>")


@dataclass(frozen=True)
class PromptContent(Generic[Media_co]):
    """What a caller sends, in the order of the templates: videos, images, texts.

    Attributes:
        videos: Videos.
        images: Images.
        texts: Texts.
    """

    videos: tuple[Media_co, ...] = ()
    images: tuple[Media_co, ...] = ()
    texts: tuple[str, ...] = ()

    def parts(self) -> list[ControlToken | TextPart | Media_co]:
        """Return the content as parts of a prompt, with truncatable texts."""
        return [*self.videos, *self.images, *(TextPart(text, truncatable=True) for text in self.texts)]


def normalize_instruction(instruction: str) -> str:
    """Normalize an embedding instruction as the official script does.

    Args:
        instruction: Any text.

    Returns:
        The instruction without whitespace around it, with a full stop unless it is empty or ends with punctuation.
    """
    instruction = instruction.strip()
    if instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        instruction += "."
    return instruction


def timestamp_text(seconds: float) -> str:
    """Return the text that stands before a frame pair of a video.

    Args:
        seconds: The pair's time.

    Returns:
        The text, with one decimal.
    """
    return f"<{seconds:.1f} seconds>"


def embed_prompt(content: PromptContent[Media_co], instruction: str) -> list[ControlToken | TextPart | Media_co]:
    """Return the prompt of the embedding models.

    Args:
        content: What is embedded; it becomes the user's message.
        instruction: Becomes the system message as it is; see `normalize_instruction`.

    Returns:
        The parts of the prompt.
    """
    return [
        *(_START, TextPart(f"system\n{instruction}"), _END, TextPart("\n")),
        *(_START, TextPart("user\n"), *content.parts(), _END, TextPart("\n")),
        *(_START, TextPart("assistant\n")),
    ]


def rerank_prompt(
    query: PromptContent[Media_co], document: PromptContent[Media_co], instruction: str
) -> list[ControlToken | TextPart | Media_co]:
    """Return the prompt of the reranking models, with everything in the user's message.

    Args:
        query: The query.
        document: The document that is judged.
        instruction: What the judgement is about; it is not normalized.

    Returns:
        The parts of the prompt.
    """
    return [
        *(_START, TextPart(f"system\n{RERANK_SYSTEM}"), _END, TextPart("\n")),
        *(_START, TextPart(f"user\n<Instruct>: {instruction}")),
        *(TextPart("<Query>:"), *query.parts()),
        *(TextPart("\n<Document>:"), *document.parts(), _END, TextPart("\n")),
        *(_START, TextPart("assistant\n")),
    ]

"""The prompt templates of the embedding and the reranking models, as lists of parts.

A prompt is a list of parts: control tokens, text, images and videos.  Only the control tokens placed here act as
control tokens; whatever a caller's text contains is tokenized as ordinary text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from qwen3vl.types import Grid

EMBED_INSTRUCTION = "Represent the user's input."
RERANK_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
RERANK_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
PROMPT_VERSION = 1
"""Grows when a change here changes the tokens of an input; part of every recipe."""


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A control token by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class TextPart:
    """A piece of a run.  Where the prompt is too long, `cut` pieces lose their ends, the last piece first."""

    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class VisionPart:
    """A picture or a clip as planned: `key` names its pixels, `times` the second of each frame pair of a clip."""

    key: Hashable
    grid: Grid
    times: tuple[float, ...] = ()


PromptPart = ControlToken | TextPart | VisionPart
Media_co = TypeVar("Media_co", covariant=True)
"""A `Vision`, or what becomes one when the prompt's sizes are settled."""

_START, _END = ControlToken("<|im_start|>"), ControlToken("<|im_end|>")


@dataclass(frozen=True)
class PromptContent(Generic[Media_co]):
    """What a caller sends: clips, pictures and texts, in the order in which the frames show them."""

    videos: tuple[Media_co, ...] = ()
    images: tuple[Media_co, ...] = ()
    texts: tuple[str, ...] = ()

    def parts(self) -> list[ControlToken | TextPart | Media_co]:
        return [*self.videos, *self.images, *(TextPart(text, cut=True) for text in self.texts)]


def normalize_instruction(instruction: str) -> str:
    """An embedding instruction as the reference sends it: stripped, and ended by punctuation."""
    instruction = instruction.strip()
    if instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        instruction += "."
    return instruction


def embed_prompt(content: PromptContent[Media_co], instruction: str) -> list[ControlToken | TextPart | Media_co]:
    """The frame of the embedding models: the instruction is the system's turn, the content the user's."""
    return [
        *(_START, TextPart(f"system\n{instruction}"), _END, TextPart("\n")),
        *(_START, TextPart("user\n"), *content.parts(), _END, TextPart("\n")),
        *(_START, TextPart("assistant\n")),
    ]


def rerank_prompt(
    query: PromptContent[Media_co], document: PromptContent[Media_co], instruction: str
) -> list[ControlToken | TextPart | Media_co]:
    """The frame of the reranking models: instruction, query and document in one user turn."""
    return [
        *(_START, TextPart(f"system\n{RERANK_SYSTEM}"), _END, TextPart("\n")),
        *(_START, TextPart(f"user\n<Instruct>: {instruction}")),
        *(TextPart("<Query>:"), *query.parts()),
        *(TextPart("\n<Document>:"), *document.parts(), _END, TextPart("\n")),
        *(_START, TextPart("assistant\n")),
    ]

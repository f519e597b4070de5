"""The two frames around what a caller sends, and the token ids and positions that they become.

A prompt is a list of parts: control tokens, runs of text, pictures and clips.  Only control tokens placed
here act as such; whatever a caller's text holds is tokenised as ordinary text.  A run is tokenised whole,
frame and user text together, since the pre-tokeniser joins characters across the seam.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HFTokenizer

from qwen3vl.errors import InputError, ModelError
from qwen3vl.geometry import MERGE
from qwen3vl.model.vision import Grid
from qwen3vl.packing import Prompted, Span

EMBED_INSTRUCTION = "Represent the user's input."
RERANK_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
RERANK_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
PROMPT_VERSION = 1
"""Grows when a change here changes the tokens of an input; part of every recipe."""


@dataclass(frozen=True, slots=True)
class Control:
    """A control token by its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of a run.  Where the prompt is too long, `cut` pieces lose their ends, the last piece first."""

    text: str
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Vision:
    """A picture or a clip as planned: `key` names its pixels, `times` the second of each frame pair of a clip."""

    key: Hashable
    grid: Grid
    times: tuple[float, ...] = ()


Part = Control | Text | Vision
Media_co = TypeVar("Media_co", covariant=True)
"""A `Vision`, or what becomes one when the prompt's sizes are settled."""

_START, _END = Control("<|im_start|>"), Control("<|im_end|>")


@dataclass(frozen=True)
class Content(Generic[Media_co]):
    """What a caller sends: clips, pictures and texts, in the order in which the frames show them."""

    videos: tuple[Media_co, ...] = ()
    images: tuple[Media_co, ...] = ()
    texts: tuple[str, ...] = ()

    def parts(self) -> list[Control | Text | Media_co]:
        return [*self.videos, *self.images, *(Text(text, cut=True) for text in self.texts)]


def punctuated(instruction: str) -> str:
    """An embedding instruction as the reference sends it: stripped, and ended by punctuation."""
    instruction = instruction.strip()
    if instruction and not unicodedata.category(instruction[-1]).startswith("P"):
        instruction += "."
    return instruction


def embed_prompt(content: Content[Media_co], instruction: str) -> list[Control | Text | Media_co]:
    """The frame of the embedding models: the instruction is the system's turn, the content the user's."""
    return [
        *(_START, Text(f"system\n{instruction}"), _END, Text("\n")),
        *(_START, Text("user\n"), *content.parts(), _END, Text("\n")),
        *(_START, Text("assistant\n")),
    ]


def rerank_prompt(
    query: Content[Media_co], document: Content[Media_co], instruction: str
) -> list[Control | Text | Media_co]:
    """The frame of the reranking models: instruction, query and document in one user turn."""
    return [
        *(_START, Text(f"system\n{RERANK_SYSTEM}"), _END, Text("\n")),
        *(_START, Text(f"user\n<Instruct>: {instruction}")),
        *(Text("<Query>:"), *query.parts()),
        *(Text("\n<Document>:"), *document.parts(), _END, Text("\n")),
        *(_START, Text("assistant\n")),
    ]


@dataclass(frozen=True, slots=True)
class Written:
    """A tokenised prompt, how many of its tokens are the caller's text, and how many more were cut to make it fit."""

    prompt: Prompted
    text: int
    cut: int


class Tokenizer:
    """A checkpoint's `tokenizer.json`, with control tokens in text taken as ordinary text."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = HFTokenizer.from_file(str(path))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # The embedding models' own tokenizer ends every sequence with <|endoftext|>.
        self.suffix: tuple[int, ...] = tuple(self._tokenizer.encode("", add_special_tokens=True).ids)
        self._tokenizer.encode_special_tokens = True
        self._controls: dict[str, int] = {}

    def control(self, name: str) -> int:
        """The id of a control token or of a word that is one token, such as "yes"."""
        if name not in self._controls:
            found = self._tokenizer.token_to_id(name)
            if found is None:
                raise ModelError(f"the tokenizer has no token {name!r}: it is not that of a Qwen3-VL model")
            self._controls[name] = found
        return self._controls[name]

    def run(self, pieces: Sequence[Text]) -> tuple[list[int], list[int]]:
        """Ids of a run of text pieces, and for each id the piece that may lose it, or -1 for the frame's.

        An id belongs to a piece only when all of its characters do.
        """
        encoding = self._tokenizer.encode("".join(piece.text for piece in pieces), add_special_tokens=False)
        ends = list(accumulate(len(piece.text) for piece in pieces))
        owner = []
        for first, last in encoding.offsets:
            number = min(bisect_right(ends, first), len(pieces) - 1)
            owner.append(number if pieces[number].cut and last <= ends[number] else -1)
        return encoding.ids, owner

    def write(self, parts: Iterable[Part], max_length: int) -> Written:
        """Tokenises a prompt and cuts the caller's text where it is longer than `max_length` tokens.

        The last piece that may be cut loses its end first.  Raises `InputError` when the prompt is too long
        without any of that text.
        """
        builder = _Writer(self)
        for part in parts:
            builder.add(part)
        return builder.finish(max_length)


class _Writer:
    """Collects ids, owners and spans part by part."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.owner: list[int] = []
        self.spans: list[Span] = []
        self.pending: list[Text] = []
        self.pieces = 0

    def add(self, part: Part) -> None:
        match part:
            case Text():
                self.pending.append(part)
            case Control(name):
                self.flush()
                self.put([self.tokenizer.control(name)])
            case Vision(times=()):
                self.show(part, "<|image_pad|>", part.grid[1] * part.grid[2] // MERGE**2, 0)
            case Vision():
                count = part.grid[1] * part.grid[2] // MERGE**2
                for number, time in enumerate(part.times):
                    self.pending.append(Text(f"<{time:.1f} seconds>"))
                    self.show(part, "<|video_pad|>", count, number * count)

    def show(self, part: Vision, pad: str, count: int, offset: int) -> None:
        self.flush()
        self.put([self.tokenizer.control("<|vision_start|>")])
        start = len(self.ids)
        self.put([self.tokenizer.control(pad)] * count)
        self.spans.append(Span(start, start + count, part.key, part.grid, offset))
        self.put([self.tokenizer.control("<|vision_end|>")])

    def flush(self) -> None:
        if self.pending:
            ids, owner = self.tokenizer.run(self.pending)
            self.ids += ids
            self.owner += [place + self.pieces if place >= 0 else -1 for place in owner]
            self.pieces += len(self.pending)
            self.pending = []

    def put(self, ids: list[int]) -> None:
        self.ids += ids
        self.owner += [-1] * len(ids)

    def finish(self, max_length: int) -> Written:
        self.flush()
        self.put(list(self.tokenizer.suffix))
        excess = max(len(self.ids) - max_length, 0)
        spans = tuple(self.spans)
        ids = np.array(self.ids, dtype=np.int64)
        if excess:
            ids, spans = self._cut(ids, excess, max_length)
        text = sum(owner >= 0 for owner in self.owner) - excess
        return Written(Prompted(ids, mrope_positions(len(ids), spans), spans), text, excess)

    def _cut(self, ids: NDArray[np.int64], excess: int, max_length: int) -> tuple[NDArray[np.int64], tuple[Span, ...]]:
        """Drops the last `excess` tokens that belong to the caller's text, the last piece's first."""
        owner = np.array(self.owner)
        own = np.flatnonzero(owner >= 0)
        if len(own) < excess:
            raise InputError(
                f"it takes {len(ids) - len(own)} tokens without any of its text and max_length is {max_length}: "
                "send fewer pictures or frames, or raise max_length"
            )
        keep = np.ones(len(ids), dtype=bool)
        keep[own[len(own) - excess :]] = False
        moved = np.cumsum(keep) - keep
        spans = tuple(
            Span(int(moved[span.start]), int(moved[span.start]) + span.stop - span.start, *_rest(span))
            for span in self.spans
        )
        return ids[keep], spans


def _rest(span: Span) -> tuple[Hashable, Grid, int]:
    return span.key, span.grid, span.offset


def mrope_positions(length: int, spans: Sequence[Span]) -> NDArray[np.int64]:
    """Positions of time, height and width: (3, length).

    Text counts on all three; the tokens of a picture or frame pair stay at one time and count rows and
    columns from there; what follows goes on behind the largest of them (Qwen3-VL's interleaved mRoPE,
    where a clip's times are in its text).
    """
    positions = np.empty((3, length), dtype=np.int64)
    place = following = 0
    for span in spans:
        positions[:, place : span.start] = np.arange(following, following + span.start - place)
        following += span.start - place
        rows, columns = span.grid[1] // MERGE, span.grid[2] // MERGE
        y, x = np.divmod(np.arange(rows * columns), columns)
        positions[0, span.start : span.stop] = following
        positions[1, span.start : span.stop] = following + y
        positions[2, span.start : span.stop] = following + x
        following += max(rows, columns)
        place = span.stop
    positions[:, place:] = np.arange(following, following + length - place)
    return positions

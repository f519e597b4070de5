"""Tokenizes prompts and cuts the caller's text where a prompt is too long."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HFTokenizer

from qwen3vl.errors import InputError, ModelError
from qwen3vl.processing.encoded_prompt import EncodedPrompt, VisionSpan
from qwen3vl.processing.geometry import MERGE
from qwen3vl.processing.mrope import mrope_positions
from qwen3vl.processing.templates import ControlToken, PromptPart, TextPart, VisionPart
from qwen3vl.types import Grid


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A tokenised prompt, how many of its tokens are the caller's text, and how many more were cut to make it fit."""

    prompt: EncodedPrompt
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

    def run(self, pieces: Sequence[TextPart]) -> tuple[list[int], list[int]]:
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

    def write(self, parts: Iterable[PromptPart], max_length: int) -> TokenizedPrompt:
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
        self.spans: list[VisionSpan] = []
        self.pending: list[TextPart] = []
        self.pieces = 0

    def add(self, part: PromptPart) -> None:
        match part:
            case TextPart():
                self.pending.append(part)
            case ControlToken(name):
                self.flush()
                self.put([self.tokenizer.control(name)])
            case VisionPart(times=()):
                self.show(part, "<|image_pad|>", part.grid[1] * part.grid[2] // MERGE**2, 0)
            case VisionPart():
                count = part.grid[1] * part.grid[2] // MERGE**2
                for number, time in enumerate(part.times):
                    self.pending.append(TextPart(f"<{time:.1f} seconds>"))
                    self.show(part, "<|video_pad|>", count, number * count)

    def show(self, part: VisionPart, pad: str, count: int, offset: int) -> None:
        self.flush()
        self.put([self.tokenizer.control("<|vision_start|>")])
        start = len(self.ids)
        self.put([self.tokenizer.control(pad)] * count)
        self.spans.append(VisionSpan(start, start + count, part.key, part.grid, offset))
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

    def finish(self, max_length: int) -> TokenizedPrompt:
        self.flush()
        self.put(list(self.tokenizer.suffix))
        excess = max(len(self.ids) - max_length, 0)
        spans = tuple(self.spans)
        ids = np.array(self.ids, dtype=np.int64)
        if excess:
            ids, spans = self._cut(ids, excess, max_length)
        text = sum(owner >= 0 for owner in self.owner) - excess
        return TokenizedPrompt(EncodedPrompt(ids, mrope_positions(len(ids), spans), spans), text, excess)

    def _cut(
        self, ids: NDArray[np.int64], excess: int, max_length: int
    ) -> tuple[NDArray[np.int64], tuple[VisionSpan, ...]]:
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
            VisionSpan(int(moved[span.start]), int(moved[span.start]) + span.stop - span.start, *_rest(span))
            for span in self.spans
        )
        return ids[keep], spans


def _rest(span: VisionSpan) -> tuple[Hashable, Grid, int]:
    return span.key, span.grid, span.offset

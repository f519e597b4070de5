"""Tokenizes prompts, and truncates the caller's text where a prompt is too long."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as HFTokenizer

from qwen3vl.errors import InputError, ModelError
from qwen3vl.processing.encoded_prompt import EncodedPrompt, VisionSpan
from qwen3vl.processing.geometry import SPATIAL_MERGE_SIZE
from qwen3vl.processing.mrope import mrope_positions
from qwen3vl.processing.templates import ControlToken, PromptPart, TextPart, VisionPart, timestamp_text

_TEMPLATE = -1
"""Owner of tokens that are never truncated."""
_PIECE_CHARS = 4096
"""Longer texts are tokenized in pieces of about this length: the library holds Python's global lock for 2 microseconds
a character, and takes 300 bytes for each."""
_MAX_LOCKED_CHARS = 65_536
"""Longer pieces are tokenized by the library's threads, which do not hold the lock."""
_LETTERS = (
    r"A-Za-z\u00c0-\u00d6\u0391-\u03a1\u03b1-\u03c9\u0410-\u044f"  # Latin, Greek, Cyrillic
    r"\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"  # Japanese, Chinese, Korean
)
_BREAK = re.compile(rf"(?<=[{_LETTERS}])(?=[ \n,.;:!?])")
"""Where a text can be divided without changing its tokens: Qwen's pre-tokenizer (`pre_tokenizer` in `tokenizer.json`)
ends a match behind each run of letters. No added token has such a place in it, and its normalizer, NFC, combines
nothing across it."""


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt that is at most `max_length` tokens long.

    Attributes:
        prompt: Token ids, positions and vision spans.
        num_text_tokens: Number of its tokens that are the caller's text; a token that also has characters of the
            template is none of them.
        num_truncated_tokens: Number of tokens of the caller's text that were removed to make it fit.
    """

    prompt: EncodedPrompt
    num_text_tokens: int
    num_truncated_tokens: int


class Tokenizer:
    """The tokenizer of a checkpoint; names of control tokens in a text are tokenized as ordinary text.

    Args:
        path: The checkpoint's `tokenizer.json`.

    Attributes:
        suffix: Ids that the tokenizer appends to every sequence: that of the embedding models appends `<|endoftext|>`.

    Raises:
        ModelError: The file is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = HFTokenizer.from_file(str(path))
        except Exception as error:  # the library raises no class of its own
            raise ModelError(f"{path} is damaged or incomplete: {error}. Download it again") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.suffix: tuple[int, ...] = tuple(self._tokenizer.encode("", add_special_tokens=True).ids)
        self._tokenizer.encode_special_tokens = True
        self._token_ids: dict[str, int] = {}
        added = self._tokenizer.get_added_tokens_decoder().values()
        self._control_tokens = tuple(token.content for token in added if token.special)

    def find_control_token(self, text: str) -> str | None:
        """Find the name of a control token in a text.

        Args:
            text: Any text.

        Returns:
            The name; None if there is none.
        """
        return next((token for token in self._control_tokens if token in text), None)

    def token_id(self, token: str) -> int:
        """Return the id of a control token, or of a word that is one token, such as "yes".

        Args:
            token: The token's text.

        Returns:
            Its id.

        Raises:
            ModelError: The vocabulary has no such token.
        """
        if token not in self._token_ids:
            token_id = self._tokenizer.token_to_id(token)
            if token_id is None:
                raise ModelError(
                    f"the tokenizer has no token {token!r}: it is not that of a Qwen3-VL model; use the tokenizer.json "
                    "of the official checkpoint"
                )
            self._token_ids[token] = token_id
        return self._token_ids[token]

    def encode_text(self, parts: Sequence[TextPart]) -> tuple[list[int], list[int]]:
        """Tokenize adjacent texts together.

        Args:
            parts: The texts, in order.

        Returns:
            Token ids, and for each of them the index of the truncatable part it belongs to. The index is -1 for a
            token that may not be truncated: a part of the template, or a token with characters of two parts.
        """
        ends = list(accumulate(len(part.text) for part in parts))
        ids: list[int] = []
        owners = []
        for offset, piece in _split("".join(part.text for part in parts)):
            if len(piece) > _MAX_LOCKED_CHARS:
                (encoding,) = self._tokenizer.encode_batch([piece], add_special_tokens=False)
            else:
                encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            ids += encoding.ids
            for start, stop in encoding.offsets:
                index = min(bisect_right(ends, offset + start), len(parts) - 1)
                owners.append(index if parts[index].truncatable and offset + stop <= ends[index] else _TEMPLATE)
        return ids, owners

    def encode_prompt(self, parts: Iterable[PromptPart], max_length: int) -> TokenizedPrompt:
        """Tokenize a prompt. Where it is too long, truncatable texts lose their ends, the last text first.

        Args:
            parts: The parts of the prompt.
            max_length: Maximum number of tokens.

        Returns:
            The tokenized prompt.

        Raises:
            InputError: The prompt is too long even without its truncatable texts.
            ModelError: The vocabulary lacks a control token.
        """
        builder = _PromptBuilder(self)
        for part in parts:
            builder.add(part)
        return builder.build(max_length)


class _PromptBuilder:
    """Collects token ids, their owners and the vision spans of a prompt, part by part.

    A token's owner is the number of the truncatable text it belongs to, or `_TEMPLATE`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._owners: list[int] = []
        self._spans: list[VisionSpan] = []
        self._pending_texts: list[TextPart] = []
        self._num_texts = 0

    def add(self, part: PromptPart) -> None:
        """Append a part."""
        match part:
            case TextPart():
                self._pending_texts.append(part)
            case ControlToken(name):
                self._flush_texts()
                self._append([self._tokenizer.token_id(name)])
            case VisionPart(timestamps=()):
                self._add_vision(part, "<|image_pad|>", offset=0)
            case VisionPart():
                for number, timestamp in enumerate(part.timestamps):
                    self._pending_texts.append(TextPart(timestamp_text(timestamp)))
                    self._add_vision(part, "<|video_pad|>", offset=number * _tokens_per_frame_pair(part))

    def build(self, max_length: int) -> TokenizedPrompt:
        """Append the tokenizer's suffix and truncate the prompt to `max_length` tokens."""
        self._flush_texts()
        self._append(list(self._tokenizer.suffix))
        num_excess = max(len(self._ids) - max_length, 0)
        ids, spans = np.array(self._ids, dtype=np.int64), tuple(self._spans)
        if num_excess:
            ids, spans = self._truncate(ids, num_excess, max_length)
        num_text_tokens = sum(owner != _TEMPLATE for owner in self._owners) - num_excess
        prompt = EncodedPrompt(ids, mrope_positions(len(ids), spans), spans)
        return TokenizedPrompt(prompt, num_text_tokens, num_excess)

    def _add_vision(self, part: VisionPart, pad_token: str, *, offset: int) -> None:
        """Append the tokens of an image or frame pair; `offset` is the first one's index within its video."""
        self._flush_texts()
        self._append([self._tokenizer.token_id("<|vision_start|>")])
        start, num_tokens = len(self._ids), _tokens_per_frame_pair(part)
        self._append([self._tokenizer.token_id(pad_token)] * num_tokens)
        self._spans.append(VisionSpan(start, start + num_tokens, part.key, part.grid, offset))
        self._append([self._tokenizer.token_id("<|vision_end|>")])

    def _flush_texts(self) -> None:
        """Tokenize the texts since the last control token together: the pre-tokenizer joins characters across parts."""
        if self._pending_texts:
            ids, owners = self._tokenizer.encode_text(self._pending_texts)
            self._ids += ids
            self._owners += [owner if owner == _TEMPLATE else owner + self._num_texts for owner in owners]
            self._num_texts += len(self._pending_texts)
            self._pending_texts = []

    def _append(self, ids: list[int]) -> None:
        self._ids += ids
        self._owners += [_TEMPLATE] * len(ids)

    def _truncate(
        self, ids: NDArray[np.int64], num_excess: int, max_length: int
    ) -> tuple[NDArray[np.int64], tuple[VisionSpan, ...]]:
        """Remove the last `num_excess` tokens of truncatable texts; move the spans accordingly."""
        truncatable = np.flatnonzero(np.array(self._owners) != _TEMPLATE)
        if len(truncatable) < num_excess:
            raise InputError(
                f"it takes {len(ids) - len(truncatable)} tokens without any of its text and max_length is "
                f"{max_length}: send fewer images or frames, or raise max_length"
            )
        keep = np.ones(len(ids), dtype=bool)
        keep[truncatable[len(truncatable) - num_excess :]] = False
        new_indices = np.cumsum(keep) - keep
        spans = []
        for span in self._spans:
            start = int(new_indices[span.start])
            spans.append(replace(span, start=start, stop=start + span.stop - span.start))
        return ids[keep], tuple(spans)


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Divide a text into pieces whose tokens are together those of the text; yield each with its first index."""
    start = 0
    while match := _BREAK.search(text, start + _PIECE_CHARS):
        yield start, text[start : match.start()]
        start = match.start()
    yield start, text[start:]


def _tokens_per_frame_pair(part: VisionPart) -> int:
    _, rows, columns = part.grid
    return rows * columns // SPATIAL_MERGE_SIZE**2

"""Tokenizes prompts, and truncates the caller's text where a prompt is too long."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, compress
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as HFTokenizer

from qwen3vl.errors import InputError, ModelError
from qwen3vl.processing.encoded_prompt import EncodedPrompt, Ints, VisionSpan
from qwen3vl.processing.geometry import SPATIAL_MERGE_SIZE
from qwen3vl.processing.mrope import mrope_positions
from qwen3vl.processing.templates import ControlToken, PromptPart, TextPart, VisionPart, timestamp_text
from qwen3vl.processing.text_pieces import BREAK, MIN_LONG_CHARS, GapFinder, VocabularySize

_TEMPLATE = -1
"""Owner of tokens that are never truncated."""
_PIECE_CHARS = 4096
"""Longer texts are tokenized in pieces of about this length: the library holds Python's global lock for 2 microseconds
a character, and takes 300 bytes for each."""
_MAX_LOCKED_CHARS = 65_536
"""Longer pieces are tokenized by the library's threads, which do not hold the lock."""


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt that is at most `max_length` tokens long.

    Attributes:
        prompt: Token ids, positions and vision spans.
        num_text_tokens: Number of its tokens that are the caller's text; a token that also has characters of the
            template is none of them.
        num_truncated_tokens: Number of tokens of the caller's text that were removed to make it fit.
        is_count_complete: Whether that is all of them. Of very long texts, the end is not even tokenized.
    """

    prompt: EncodedPrompt
    num_text_tokens: int
    num_truncated_tokens: int
    is_count_complete: bool = True


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
        ids: list[int] = []
        owners: list[int] = []
        for piece_ids, piece_owners in self.encode_pieces(parts):
            ids += piece_ids
            owners += piece_owners
        return ids, owners

    def encode_pieces(
        self, parts: Sequence[TextPart], gaps: Sequence[tuple[int, int]] = ()
    ) -> Iterator[tuple[list[int], list[int]]]:
        """Tokenize adjacent texts together, piece by piece.

        Args:
            parts: The texts, in order.
            gaps: What is left out of the texts together, as `GapFinder.find` returns it.

        Yields:
            Ids and owners of the next tokens, as `encode_text` returns them.
        """
        ends = list(accumulate(len(part.text) for part in parts))
        for offset, piece in _split("".join(part.text for part in parts), gaps):
            if len(piece) > _MAX_LOCKED_CHARS:
                (encoding,) = self._tokenizer.encode_batch([piece], add_special_tokens=False)
            else:
                encoding = self._tokenizer.encode(piece, add_special_tokens=False)
            owners = []
            for start, stop in encoding.offsets:
                index = min(bisect_right(ends, offset + start), len(parts) - 1)
                owners.append(index if parts[index].truncatable and offset + stop <= ends[index] else _TEMPLATE)
            yield encoding.ids, owners

    @cached_property
    def vocabulary_size(self) -> VocabularySize:
        """The sizes of the vocabulary, each of whose characters stands for a byte."""
        lengths = [len(token) for token in self._tokenizer.get_vocab(with_added_tokens=True)]
        return VocabularySize(max(lengths), sum(lengths))

    def draft_prompt(self, parts: Iterable[PromptPart], max_length: int) -> PromptDraft:
        """Tokenize the texts of a prompt, and count the tokens of its images and videos.

        Args:
            parts: The parts of the prompt.
            max_length: Maximum number of tokens.

        Returns:
            The prompt, which may still be too long.

        Raises:
            InputError: The prompt is too long even without its truncatable texts. Not every such prompt is found here.
            ModelError: The vocabulary lacks a control token.
        """
        draft = PromptDraft(self, max_length)
        for part in parts:
            draft.add(part)
        draft.end()
        return draft

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
        return self.draft_prompt(parts, max_length).build()


class PromptDraft:
    """A prompt that may be longer than `max_length`; its parts are added one after the other.

    Tokens that truncation removes in any case are only counted, and ids of vision tokens are only made once they fit.

    Args:
        tokenizer: The tokenizer.
        max_length: Maximum number of tokens.

    Attributes:
        num_text_tokens: Number of tokens that can be truncated; see `__len__`.
        num_vision_tokens: Number of tokens of images and videos, without the control tokens around them.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._ids: list[int] = []
        self._is_text: list[bool] = []
        # Index in `_ids` of the one token that stands for a span, the span's length, its part and its offset.
        self._visions: list[tuple[int, int, VisionPart, int]] = []
        self._pending_texts: list[TextPart] = []
        self._gap_finder: GapFinder | None = None
        self._has_gaps = False
        self._num_kept_texts = self._num_chars = 0
        self.num_text_tokens = 0
        self.num_vision_tokens = 0

    def __len__(self) -> int:
        """Return the number of tokens, or, if some of the texts is not tokenized, a smaller one above `max_length`."""
        return (
            len(self._ids) + self.num_text_tokens - self._num_kept_texts + self.num_vision_tokens - len(self._visions)
        )

    def add(self, part: PromptPart) -> None:
        """Append a part.

        Args:
            part: The part.
        """
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

    def end(self) -> None:
        """Append the tokenizer's suffix."""
        self._flush_texts()
        self._append(list(self._tokenizer.suffix))

    def build(self) -> TokenizedPrompt:
        """Return the prompt, truncated to `max_length` tokens.

        Returns:
            The prompt.

        Raises:
            InputError: It is too long even without its truncatable texts.
        """
        num_excess = max(len(self) - self._max_length, 0)
        if num_excess > self.num_text_tokens:
            raise InputError(
                f"it takes {len(self) - self.num_text_tokens} tokens without any of its text and max_length is "
                f"{self._max_length}: send fewer images or frames, or raise max_length"
            )
        num_text_tokens = self.num_text_tokens - num_excess
        ids = np.array(self._ids, dtype=np.int64)
        spans: tuple[VisionSpan, ...] = ()
        if num_excess or self._visions:
            ids, spans = self._expand_visions(ids, num_text_tokens)
        prompt = EncodedPrompt(ids, mrope_positions(len(ids), spans), spans)
        return TokenizedPrompt(prompt, num_text_tokens, num_excess, is_count_complete=not self._has_gaps)

    def _expand_visions(self, ids: Ints, num_text_tokens: int) -> tuple[Ints, tuple[VisionSpan, ...]]:
        """Remove all tokens of texts but the first ones, and repeat the tokens that stand for spans."""
        keep = np.ones(len(ids), dtype=bool)
        keep[np.flatnonzero(self._is_text)[num_text_tokens:]] = False
        lengths = np.ones(len(ids), dtype=np.int64)
        for index, length, _, _ in self._visions:
            lengths[index] = length
        stops = np.cumsum(np.where(keep, lengths, 0))
        spans = tuple(
            VisionSpan(int(stops[index]) - length, int(stops[index]), part.key, part.grid, offset)
            for index, length, part, offset in self._visions
        )
        return np.repeat(ids[keep], lengths[keep]), spans

    def _add_vision(self, part: VisionPart, pad_token: str, *, offset: int) -> None:
        """Append the tokens of an image or frame pair; `offset` is the first one's index within its video."""
        self._flush_texts()
        self._append([self._tokenizer.token_id("<|vision_start|>")])
        num_tokens = _tokens_per_frame_pair(part)
        self._visions.append((len(self._ids), num_tokens, part, offset))
        self.num_vision_tokens += num_tokens
        self._append([self._tokenizer.token_id(pad_token), self._tokenizer.token_id("<|vision_end|>")])

    def _flush_texts(self) -> None:
        """Tokenize the texts since the last control token together: the pre-tokenizer joins characters across parts."""
        if not self._pending_texts:
            return
        for ids, owners in self._tokenizer.encode_pieces(self._pending_texts, self._find_gaps()):
            is_text = [owner != _TEMPLATE for owner in owners]
            num_texts = sum(is_text)
            self.num_text_tokens += num_texts
            num_free = self._max_length - self._num_kept_texts
            if num_texts > num_free:  # the others are truncated in any case
                keep = [
                    not text or number <= num_free for text, number in zip(is_text, accumulate(is_text), strict=True)
                ]
                ids, is_text = list(compress(ids, keep)), list(compress(is_text, keep))
                num_texts = num_free
            self._num_kept_texts += num_texts
            self._ids += ids
            self._is_text += is_text
        self._pending_texts = []

    def _find_gaps(self) -> list[tuple[int, int]]:
        self._num_chars += sum(len(part.text) for part in self._pending_texts)
        if self._num_chars < MIN_LONG_CHARS:
            return []
        if self._gap_finder is None:
            self._gap_finder = GapFinder(self._tokenizer.vocabulary_size, self._max_length)
        gaps = self._gap_finder.find(self._pending_texts)
        self._has_gaps = self._has_gaps or bool(gaps)
        return gaps

    def _append(self, ids: list[int]) -> None:
        self._ids += ids
        self._is_text += [False] * len(ids)


def _split(text: str, gaps: Sequence[tuple[int, int]] = ()) -> Iterator[tuple[int, str]]:
    """Divide a text into pieces whose tokens are together those of the text; yield each with its first index."""
    start = 0
    for gap_start, gap_stop in (*gaps, (len(text), len(text))):
        while match := BREAK.search(text, start + _PIECE_CHARS, gap_start):
            yield start, text[start : match.start()]
            start = match.start()
        if start < gap_start or not gaps:
            yield start, text[start:gap_start]
        start = gap_stop


def _tokens_per_frame_pair(part: VisionPart) -> int:
    _, rows, columns = part.grid
    return rows * columns // SPATIAL_MERGE_SIZE**2

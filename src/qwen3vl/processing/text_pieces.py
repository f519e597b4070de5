"""Where long texts are divided to be tokenized, and which parts of them need not be tokenized at all."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from qwen3vl.errors import InputError
from qwen3vl.processing.templates import TextPart

_LETTERS = (
    r"A-Za-z\u00c0-\u00d6\u0391-\u03a1\u03b1-\u03c9\u0410-\u044f"  # Latin, Greek, Cyrillic
    r"\u3041-\u3096\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"  # Japanese, Chinese, Korean
)
_PUNCTUATION = r"\n,.;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f"
BREAK = re.compile(
    rf"(?<=[{_LETTERS}])(?=[{_PUNCTUATION}0-9])|(?<=[0-9])(?=[{_LETTERS}0-9])|(?<=\S)(?= )",
)
"""Where a text can be divided without changing its tokens. Qwen's pre-tokenizer (`pre_tokenizer` in `tokenizer.json`)
ends a match behind each run of letters and behind each digit, and no match goes on with a space. No added token has
such a place in it, and the normalizer, NFC, combines nothing across it."""
MIN_LONG_CHARS = 2**20
"""Shorter texts are tokenized as a whole."""
_SEARCH_CHARS = 8192
"""How far to look for a `BREAK`."""
_MIN_GAP_CHARS = 2**15


@dataclass(frozen=True, slots=True)
class VocabularySize:
    """Sizes of a vocabulary in bytes.

    Attributes:
        longest: Length of its longest token.
        total: Length of all its tokens together.
    """

    longest: int
    total: int


class GapFinder:
    """Finds the parts of a prompt's texts that truncation removes in any case.

    A prompt has at most `max_tokens` tokens, so only that many tokens of its truncatable texts can be left, the first
    ones. They are the same if what comes later is not tokenized, provided that a text is divided

    - at a `BREAK`, or, in a text without any,
    - so far behind them that no merge reaches back. The merges of byte pair encoding apply in the order of their ranks,
      and each can only move the place from which on two texts differ by the length of its first half towards the
      beginning: together by less than the whole vocabulary.

    Args:
        vocabulary: Sizes of the vocabulary.
        max_tokens: Maximum number of tokens of the prompt.
    """

    def __init__(self, vocabulary: VocabularySize, max_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._max_bytes = max_tokens * vocabulary.longest
        self._num_chars = 0

    def find(self, parts: Sequence[TextPart]) -> list[tuple[int, int]]:
        """Find the gaps in adjacent texts. To be called for the texts of a prompt in their order.

        Args:
            parts: The texts.

        Returns:
            First and last index, exclusive, of what need not be tokenized, in the texts together, in their order.

        Raises:
            InputError: A text that cannot be truncated takes more tokens than the prompt may have, or no `BREAK` is
                near the end of a long text that another one follows.
        """
        gaps = []
        start = 0
        for part in parts:
            stop = start + len(part.text)
            chars_per_byte = 1 if part.text.isascii() else 2  # NFC may make one letter of two bytes out of three
            if part.truncatable:
                num_needed = max(self._max_bytes * chars_per_byte - self._num_chars, 0)
                self._num_chars += len(part.text)
                if len(part.text) > num_needed + _MIN_GAP_CHARS:
                    gap_start = _gap_start(part.text, num_needed, self._vocabulary.total * chars_per_byte)
                    gap_stop = len(part.text) if part is parts[-1] else _gap_stop(part.text)
                    if gap_start < gap_stop:
                        gaps.append((start + gap_start, start + gap_stop))
            elif len(part.text) > self._max_bytes * chars_per_byte:
                raise InputError(
                    f"its instruction has {len(part.text)} characters, more than max_length allows; shorten it"
                )
            start = stop
        return gaps


def _gap_start(text: str, num_needed: int, reach: int) -> int:
    match = BREAK.search(text, num_needed, num_needed + _SEARCH_CHARS)
    return num_needed + reach if match is None else match.start()


def _gap_stop(text: str) -> int:
    """Return the last place to divide a text whose last token may have characters of the next text."""
    last = None
    for last in BREAK.finditer(text, max(len(text) - _SEARCH_CHARS, 1)):  # noqa: B007 (only the last one is used)
        pass
    if last is not None:
        return last.start()
    if len(text) <= MIN_LONG_CHARS:
        return 0
    raise InputError(
        f"a text of {len(text)} characters has no space, and no letter before a digit or punctuation, in its last "
        f"{_SEARCH_CHARS}; shorten it"
    )

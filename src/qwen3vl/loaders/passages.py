"""Splits plain text and Markdown into passages, with their line numbers and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEADING_MARK = re.compile(r"#{1,6}\s+(?=\S)")
"""The beginning of an ATX heading of CommonMark."""
_CODE_FENCE = re.compile(r"\s*(?P<mark>`{3,}|~{3,})(?P<info>.*)")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s+")
_NOT_SPACE = re.compile(r"\S")
_PARAGRAPH_GAP = "\n\n"


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage of a text.

    Attributes:
        text: The text, with paragraphs separated by an empty line.
        first_line: Number of its first line, from 1.
        last_line: Number of its last line, inclusive.
        heading: The Markdown heading it stands under; empty if there is none.
        heading_only: Whether it is nothing but that heading.
    """

    text: str
    first_line: int
    last_line: int
    heading: str = ""
    heading_only: bool = False


def split_passages(content: str, max_chars: int, *, markdown: bool = False) -> Iterator[Passage]:
    """Split a text into passages.

    Paragraphs are joined as long as they fit. A paragraph that is too long is split between sentences, or between
    words if a sentence is too long. A Markdown heading begins a new passage and stays with what follows it, and a
    fenced code block that fits stays whole.

    Args:
        content: The text.
        max_chars: Maximum number of characters of a passage.
        markdown: Whether headings and code fences are recognised.

    Yields:
        Passages, in order.
    """
    collected: list[Passage] = []
    num_chars = 0
    for paragraph in _split_paragraphs(content, markdown):
        # A heading that is followed by another heading stays with it.
        has_body = any(not part.heading_only for part in collected)
        is_new_section = has_body and paragraph.heading_only
        if collected and (num_chars + len(paragraph.text) > max_chars or is_new_section):
            yield _join(collected)
            collected, num_chars = [], 0
        if len(paragraph.text) > max_chars:
            for text in _split_long_paragraph(paragraph.text, max_chars):
                yield Passage(text, paragraph.first_line, paragraph.last_line, paragraph.heading)
        else:
            collected.append(paragraph)
            num_chars += len(paragraph.text) + len(_PARAGRAPH_GAP)
    if collected:
        yield _join(collected)


def _join(parts: list[Passage]) -> Passage:
    text = _PARAGRAPH_GAP.join(part.text for part in parts)
    return Passage(text, parts[0].first_line, parts[-1].last_line, parts[-1].heading)


def _split_paragraphs(content: str, markdown: bool) -> Iterator[Passage]:
    """Split at empty lines; in Markdown, headings are paragraphs of their own and code fences are kept whole."""
    lines: list[str] = []
    heading, first_line, fence = "", 1, ""
    # Not splitlines(), which also splits at form feeds and other characters: editors do not count these as lines.
    for number, line in enumerate(content.removesuffix("\n").split("\n"), start=1):
        fence = _fence_after(line, fence) if markdown else ""
        heading_mark = _HEADING_MARK.match(line) if markdown and not fence else None
        is_body = bool(line.strip() or fence)
        if heading_mark or not is_body:
            yield from _to_paragraph(lines, first_line, heading)
            lines = []
        if heading_mark:
            title = line[heading_mark.end() :]
            heading = title.rstrip("#").rstrip() or title[0]
            yield Passage(line.strip(), number, number, heading, heading_only=True)
        elif is_body:
            first_line = first_line if lines else number
            lines.append(line)
    yield from _to_paragraph(lines, first_line, heading)


def _fence_after(line: str, fence: str) -> str:
    """Return the code fence that is open after a line of Markdown (CommonMark 0.31, section 4.5).

    Args:
        line: The line.
        fence: The fence that is open before it; empty outside of code.

    Returns:
        Three or more backticks or tildes; empty outside of code.
    """
    match = _CODE_FENCE.match(line)
    if match is None:
        return fence
    mark, info = match["mark"], match["info"]
    if not fence:
        return "" if "`" in info and mark.startswith("`") else mark
    return "" if mark.startswith(fence) and not info.strip() else fence


def _to_paragraph(lines: list[str], first_line: int, heading: str) -> Iterator[Passage]:
    if text := "\n".join(lines).strip():
        yield Passage(text, first_line, first_line + len(lines) - 1, heading)


def _split_long_paragraph(text: str, max_chars: int) -> Iterator[str]:
    """Join sentences, and pieces of sentences that are too long, as long as they fit."""
    collected = ""
    for sentence in _SENTENCE_END.split(text):
        for piece in _split_long_sentence(sentence, max_chars):
            if collected and len(collected) + 1 + len(piece) > max_chars:
                yield collected
                collected = piece
            else:
                collected = f"{collected} {piece}" if collected else piece
    if collected:
        yield collected


def _split_long_sentence(sentence: str, max_chars: int) -> Iterator[str]:
    """Split between words where there are any, else anywhere."""
    start = 0
    while len(sentence) - start > max_chars:
        cut = sentence.rfind(" ", start + 1, start + max_chars + 1)
        cut = start + max_chars if cut < 0 else cut
        yield sentence[start:cut].rstrip()
        word = _NOT_SPACE.search(sentence, cut)
        start = word.start() if word else len(sentence)
    if start < len(sentence):
        yield sentence[start:]

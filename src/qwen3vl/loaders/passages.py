"""Plain text and Markdown, in passages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from qwen3vl.documents import Document
from qwen3vl.errors import InputError
from qwen3vl.hashing import text_digest

_HEADING = re.compile(r"#{1,6}\s+(?P<title>\S.*?)\s*#*$")
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+")


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of text, the lines it spans (from 1), and the Markdown heading it stands under."""

    text: str
    first: int
    last: int
    heading: str = ""
    bare: bool = False
    """Whether it is nothing but its heading."""


def load_text(path: Path, most: int) -> Iterator[Document]:
    """Passages with `heading` (Markdown), `first_line` and `last_line` in their metadata."""
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8 text (byte {error.start}); convert it") from error
    markdown = path.suffix.lower() in (".md", ".markdown")
    for number, passage in enumerate(passages(content, most, markdown=markdown)):
        metadata = {"passage": number, "first_line": passage.first, "last_line": passage.last}
        if passage.heading:
            metadata |= {"heading": passage.heading}  # type: ignore[dict-item]
        yield Document(
            str(path),
            "text",
            text_digest(passage.text),
            locator=f"lines={passage.first},{passage.last}",
            text=passage.text,
            metadata=metadata,
        )


def passages(content: str, most: int, *, markdown: bool = False) -> Iterator[Passage]:
    """Joins paragraphs while they fit in `most` characters; cuts longer ones between sentences, then words.

    A Markdown heading begins a new passage and stays with what follows it.
    """
    collected: list[Passage] = []
    for paragraph in _paragraphs(content, markdown):
        length = sum(len(each.text) + 2 for each in collected) + len(paragraph.text)
        # A heading with nothing under it but another heading stays with that one.
        new_section = any(not each.bare for each in collected) and paragraph.heading != collected[-1].heading
        if collected and (length > most or new_section):
            yield _joined(collected)
            collected = []
        if len(paragraph.text) > most:
            yield from (
                Passage(piece, paragraph.first, paragraph.last, paragraph.heading)
                for piece in _pieces(paragraph.text, most)
            )
        else:
            collected.append(paragraph)
    if collected:
        yield _joined(collected)


def _joined(parts: list[Passage]) -> Passage:
    return Passage("\n\n".join(part.text for part in parts), parts[0].first, parts[-1].last, parts[-1].heading)


def _paragraphs(content: str, markdown: bool) -> Iterator[Passage]:
    """Stretches between empty lines; in Markdown headings stand alone, and code between fences stays whole."""
    lines: list[str] = []
    heading, first, fenced = "", 1, False
    for number, line in enumerate(content.splitlines(), start=1):
        if markdown and line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        title = _HEADING.match(line) if markdown and not fenced else None
        if title or not (line.strip() or fenced):
            yield from _paragraph(lines, first, heading)
            lines = []
        if title:
            heading = title["title"]
            yield Passage(line.strip(), number, number, heading, bare=True)
        elif line.strip() or fenced:
            first = first if lines else number
            lines.append(line)
    yield from _paragraph(lines, first, heading)


def _paragraph(lines: list[str], first: int, heading: str) -> Iterator[Passage]:
    if text := "\n".join(lines).strip():
        yield Passage(text, first, first + len(lines) - 1, heading)


def _pieces(text: str, most: int) -> Iterator[str]:
    piece = ""
    for sentence in _SENTENCE.split(text):
        for part in _words(sentence, most):
            if piece and len(piece) + 1 + len(part) > most:
                yield piece
                piece = part
            else:
                piece = f"{piece} {part}" if piece else part
    if piece:
        yield piece


def _words(sentence: str, most: int) -> Iterator[str]:
    """The sentence in stretches of at most `most` characters, cut between words where it has any."""
    while len(sentence) > most:
        cut = sentence.rfind(" ", 1, most + 1)
        cut = most if cut < 0 else cut
        yield sentence[:cut].rstrip()
        sentence = sentence[cut:].lstrip()
    if sentence:
        yield sentence

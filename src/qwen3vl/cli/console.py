"""The console of the commands. It is a module of its own because importing rich takes time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from qwen3vl.cli.output import printable


class EscapingConsole(Console):
    """A console that escapes control characters in whatever is printed, tables and progress included.

    The control codes of rich itself are segments of another kind, and are not affected.

    Args:
        stderr: Whether it prints to standard error.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a str to a `Text`. It is escaped before its width is measured."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render anything that can be printed; all output passes here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

"""What all commands share: exit codes, the console, JSON output, and how errors are shown.

Everything that a command prints is escaped here: it passes the console, the formatter of log messages, `print_json`, or
the code that prints usage errors (`qwen3vl.cli.usage`) and tracebacks (`qwen3vl.cli.process`).
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from qwen3vl.errors import Qwen3VLError

if TYPE_CHECKING:  # shell completion and usage errors do not need rich
    from rich.console import Console

EXIT_OK = 0
EXIT_FAILED = 1
"""Something failed: an item of an ingestion, or a check of `doctor`."""
EXIT_USAGE = 2
"""Wrong usage, or nothing could be done."""
EXIT_INTERRUPTED = 130
"""Ctrl-C: 128 plus the number of SIGINT, as shells report it."""

_CONTROL_CHARACTERS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1, except for tabs and line feeds
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u202a-\u202e\u2066-\u2069"  # bidirectional embeddings, overrides and isolates
    "\ud800-\udfff]"  # lone surrogates, which cannot be encoded
)


@contextmanager
def command_output(*, as_json: bool, verbose: bool, resumable: bool = False) -> Iterator[Console]:
    """Set up logging and the console of a command, and turn errors into messages and exit codes.

    Args:
        as_json: Whether the result is printed as JSON. Messages for people then go to standard error.
        verbose: Whether the library's log messages are shown, and not only its errors.
        resumable: Whether the command keeps what it has done when it is interrupted, and continues in the next run.

    Yields:
        The console for messages, progress and tables.

    Raises:
        typer.Exit: With `EXIT_USAGE` if the command raised an error that a user can act on, with
            `EXIT_INTERRUPTED` after Ctrl-C. Unexpected errors pass through with their traceback.
    """
    from qwen3vl.cli.console import EscapingConsole

    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)
    console = EscapingConsole(stderr=as_json)
    try:
        yield console
    except (Qwen3VLError, ValueError, OSError) as error:
        if as_json:
            print_json({"error": str(error)})
        else:
            console.print("[red]error:[/red]", end=" ")
            console.print(str(error), markup=False, highlight=False)
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt as error:
        rest = "; finished work is kept, and the next run continues from there" if resumable else ""
        console.print(f"[yellow]interrupted{rest}[/yellow]")
        raise typer.Exit(EXIT_INTERRUPTED) from error


def print_json(value: object) -> None:
    """Print a command's result for programs, as indented JSON on standard output.

    Args:
        value: Anything that `json.dumps` accepts.
    """
    text = json.dumps(value, ensure_ascii=False, indent=2)
    # Such characters can only be in strings of JSON, where they may be written as escapes.
    sys.stdout.write(_CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")


class EscapingFormatter(logging.Formatter):
    """Formats log messages for a terminal: one line each, without control characters, and tracebacks after it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, D102 (the name is that of logging)
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102 (as inherited)
        return printable(super().format(record))


def printable(text: str) -> str:
    r"""Escape control characters, so that a file name or a text cannot send commands to the terminal.

    Args:
        text: A file name, an error message or a passage of text.

    Returns:
        The text with control characters, bidirectional overrides and lone surrogates as `\x1b`, `\u202e` and the
        like; tabs and line feeds stay.
    """
    return _CONTROL_CHARACTERS.sub(_escape, text)


def one_line(text: str) -> str:
    r"""Escape control characters and line feeds, so that a file name cannot look like several lines of output.

    Args:
        text: A file name, or a message with one.

    Returns:
        The text as `printable` returns it, with line feeds as `\x0a`.
    """
    return printable(text).replace("\n", r"\x0a")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

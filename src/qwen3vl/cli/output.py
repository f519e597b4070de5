"""What all commands share: exit codes, the console, JSON output, and how errors are shown.

Everything that a command prints is escaped here: it passes the console, the formatter of log messages, `print_json`, or
the code that prints usage errors (`qwen3vl.cli.usage`) and tracebacks (`qwen3vl.cli.process`).
"""

from __future__ import annotations

import codecs
import errno
import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, TextIO

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
            `EXIT_INTERRUPTED` after Ctrl-C, with `EXIT_FAILED` if standard output cannot be written. Unexpected errors
            pass through with their traceback.
    """
    from qwen3vl.cli.console import EscapingConsole

    _escape_what_cannot_be_encoded()
    handler = logging.StreamHandler()
    handler.setFormatter(EscapingFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, handlers=[handler])
    logging.captureWarnings(capture=True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)
    console = EscapingConsole(stderr=as_json)
    try:
        yield console
    except (Qwen3VLError, ValueError, OSError) as error:
        try:
            if as_json:
                print_json({"error": str(error)})
            else:
                _check_output_is_open()
                console.print("[red]error:[/red]", end=" ")
                console.print(str(error), markup=False, highlight=False)
        except OSError as output_error:  # standard output itself, and perhaps what `error` is about, too
            _give_up_output(error, output_error)
            raise typer.Exit(EXIT_FAILED) from error
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt as error:
        rest = "; finished work is kept, and the next run continues from there" if resumable else ""
        console.print(f"[yellow]interrupted{rest}[/yellow]")
        raise typer.Exit(EXIT_INTERRUPTED) from error


def print_json(value: object) -> None:
    """Print a command's result for programs, as indented JSON on standard output.

    Args:
        value: Anything that `json.dumps` accepts. Where standard output is not UTF-8, characters that are not of ASCII
            become escapes.

    Raises:
        OSError: Standard output is closed or cannot be written.
    """
    _check_output_is_open()
    text = json.dumps(value, ensure_ascii=not _is_utf8(sys.stdout), indent=2)
    # Such characters can only be in strings of JSON, where they may be written as escapes.
    sys.stdout.write(_CONTROL_CHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n")
    sys.stdout.flush()  # or the interpreter does it at its end, where an error has no message of ours


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


def _check_output_is_open() -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "it is closed")


def _is_utf8(stream: TextIO) -> bool:
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


def _escape_what_cannot_be_encoded() -> None:
    """Let standard output print characters that its encoding does not have as escapes, instead of failing."""
    stream = sys.stdout
    if isinstance(stream, TextIOWrapper) and stream.errors == "strict" and not _is_utf8(stream):
        stream.reconfigure(errors="backslashreplace")


def _give_up_output(error: Exception, output_error: OSError) -> None:
    """Say on standard error that standard output cannot be written, and discard what is still to be written to it."""
    with suppress(OSError, AttributeError):  # without a descriptor, nothing is written at the end
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    # Windows has no other code for a pipe without a reader.
    if isinstance(output_error, BrokenPipeError) or (sys.platform == "win32" and output_error.errno == errno.EINVAL):
        return  # the reader, such as `head`, has what it wants
    reason = f"error: standard output cannot be written: {output_error}"
    if str(error) != str(output_error):
        reason += f"; the command failed: {error}"
    with suppress(OSError, AttributeError):
        sys.stderr.write(one_line(reason) + "\n")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"

"""What all commands share: exit codes, the console, JSON output, and how errors are shown."""

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

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@contextmanager
def command_output(*, as_json: bool, verbose: bool) -> Iterator[Console]:
    """Set up logging and the console of a command, and turn errors into messages and exit codes.

    Args:
        as_json: Whether the result is printed as JSON. Messages for people then go to standard error.
        verbose: Whether the library's log messages are shown, and not only its errors.

    Yields:
        The console for messages, progress and tables.

    Raises:
        typer.Exit: With `EXIT_USAGE` if the command raised an error that a user can act on, with
            `EXIT_INTERRUPTED` after Ctrl-C. Unexpected errors pass through with their traceback.
    """
    from rich.console import Console

    logging.basicConfig(level=logging.INFO if verbose else logging.ERROR, format="%(levelname)s %(message)s")
    console = Console(stderr=as_json)
    try:
        yield console
    except (Qwen3VLError, ValueError, OSError) as error:
        if as_json:
            print_json({"error": str(error)})
        else:
            console.print("[red]error:[/red]", end=" ")
            console.print(printable(str(error)), markup=False, highlight=False)
        raise typer.Exit(EXIT_USAGE) from error
    except KeyboardInterrupt as error:
        console.print("[yellow]interrupted; finished work is kept, and the next run continues from there[/yellow]")
        raise typer.Exit(EXIT_INTERRUPTED) from error


def print_json(value: object) -> None:
    """Print a command's result for programs, as indented JSON on standard output.

    Args:
        value: Anything that `json.dumps` accepts.
    """
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def printable(text: str) -> str:
    r"""Escape control characters, so that a file name or a text cannot send commands to the terminal.

    Args:
        text: A file name, an error message or a passage of text.

    Returns:
        The text with C0 and C1 control characters as `\x1b` and the like; tabs and line feeds stay.
    """
    return _CONTROL_CHARACTERS.sub(lambda match: f"\\x{ord(match[0]):02x}", text)

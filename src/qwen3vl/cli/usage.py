"""Usage errors: their messages may repeat an argument, and the shell makes arguments of file names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from typer.core import TyperGroup

from qwen3vl.cli.output import one_line


class EscapingGroup(TyperGroup):
    """A group of commands, some of two words, whose usage errors have no control characters."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the arguments before the command's name."""
        with _escaped_messages():
            return super().make_context(*args, **kwargs)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that arguments begin with: one of two words, as `eval mmeb-v2`, if there is one."""
        words = " ".join(args[:2])
        command = self.commands.get(words)
        return super().resolve_command(ctx, args) if command is None else (words, command, args[2:])

    def invoke(self, ctx: Any) -> Any:
        """Parse the arguments of the command, and run it."""
        with _escaped_messages():
            return super().invoke(ctx)


@contextmanager
def _escaped_messages() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The exceptions of click, which typer has as a dependency or as a copy of its own.
        if hasattr(error, "format_message"):
            error.message = one_line(str(getattr(error, "message", "")))  # type: ignore[attr-defined]
        raise

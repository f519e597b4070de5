"""The program, and its commands that are not about stores.

What a command does is imported when it runs, so that `--help` stays fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from qwen3vl.cli.eval_command import eval_command
from qwen3vl.cli.extensions import ExtensibleGroup
from qwen3vl.cli.mmeb_command import mmeb_command
from qwen3vl.cli.options import (
    OUTPUT_PANEL,
    JsonOption,
    PortOption,
    RevisionOption,
    ServeOption,
    UrlOption,
    VerboseOption,
    expand_home,
)
from qwen3vl.cli.output import command_output
from qwen3vl.cli.store_commands import copy, index, search

app = typer.Typer(
    name="qwen3vl",
    cls=ExtensibleGroup,
    help="Search images, PDF pages, videos and text by meaning.",
    no_args_is_help=True,
    # Tracebacks stay plain: those of rich show the values of local variables, which may hold documents.
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The arguments after the program's name; None means `sys.argv[1:]`.

    Returns:
        The exit code: 0 if all was done, 1 if something failed, 2 for wrong usage or if nothing could be done, 130
        after Ctrl-C.
    """
    try:
        app(sys.argv[1:] if arguments is None else list(arguments), prog_name="qwen3vl")
    except SystemExit as system_exit:
        code = system_exit.code
        return code if isinstance(code, int) else int(code is not None)
    return 0


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"qwen3vl {version('qwen3vl')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    *,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the library's log messages.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    # Commands have --verbose as well: it may be given before or after the command's name.
    context.obj = verbose


for _command in (index, search, copy):
    app.command()(_command)
app.command("eval")(eval_command)
app.command("eval mmeb-v2")(mmeb_command)


@app.command()
def merge(
    context: typer.Context,
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model: hub id or folder.", callback=expand_home)],
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="The LoRA adapter: hub id or folder.", callback=expand_home)
    ],
    out: Annotated[str, typer.Argument(metavar="OUT", help="A new folder.", callback=expand_home)],
    *,
    revision: RevisionOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a model with a LoRA adapter merged into it, for programs that load no adapters."""
    with command_output(as_json=json, verbose=verbose or context.obj) as console:
        from qwen3vl.cli.merge import run_merge

        code = run_merge(base, adapter, out, revision=revision, console=console, as_json=json)
    raise typer.Exit(code)


@app.command()
def demo(
    context: typer.Context,
    *,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="The folder that the demo writes to.",
            callback=expand_home,
            rich_help_panel=OUTPUT_PANEL,
        ),
    ] = "qwen3vl-demo",
    serve: ServeOption = False,
    port: PortOption = 8000,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Draw a small library, index it and search it, offline."""
    with command_output(as_json=json, verbose=verbose or context.obj) as console:
        from qwen3vl.cli.demo import run_demo

        code = run_demo(out, serve_at=port if serve else None, console=console, as_json=json)
    raise typer.Exit(code)


@app.command()
def doctor(
    context: typer.Context, *, url: UrlOption = None, json: JsonOption = False, verbose: VerboseOption = False
) -> None:
    """Report what is installed, what runs where, and what is wrong."""
    with command_output(as_json=json, verbose=verbose or context.obj) as console:
        from qwen3vl.cli.doctor import run_doctor

        code = run_doctor(url, console=console, as_json=json)
    raise typer.Exit(code)

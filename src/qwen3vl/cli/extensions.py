"""Commands of integrations, found by their entry points when they are used or listed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, cast

import typer
from typer.main import get_command

from qwen3vl.cli.usage import EscapingGroup

if TYPE_CHECKING:
    from qwen3vl.ingestion import Report

ENTRY_POINT_GROUP = "qwen3vl.commands"
"""Group under which integrations register a `typer.Typer` with one command, by the command's name."""
CLUSTER_GROUP = "qwen3vl.clusters"
"""Group under which an integration registers the function that `load_cluster_index` returns, as `ray`."""
INTEGRATIONS = {"serve": "server"}
"""The commands of this project's integrations, and the directory of each below `integrations/`."""


class ExtensibleGroup(EscapingGroup):
    """A group with commands of its own, and those of the integrations that are installed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands."""
        return [*super().list_commands(ctx), *sorted(_entry_points())]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; None if there is none."""
        return super().get_command(ctx, cmd_name) or load_command(cmd_name, ctx)


def load_command(name: str, ctx: Any = None) -> Any:
    """Return the command of an integration.

    Args:
        name: The command's name.
        ctx: Context of the command that is parsed, for the message.

    Returns:
        The command; None if no integration has one of this name.

    Raises:
        typer.BadParameter: The integration is not installed.
    """
    entry = _entry_points().get(name)
    if entry is not None:
        return get_command(entry.load())
    if name in INTEGRATIONS:
        directory = INTEGRATIONS[name]
        raise typer.BadParameter(
            f"the command {name} needs the integration {directory!r}, which is not installed; at the root of a "
            f"clone of the repository run: pip install . ./integrations/{directory}",
            ctx=ctx,
        )
    return None


def load_cluster_index() -> Callable[..., Report]:
    """Return the function of an integration that ingests files on a cluster.

    Returns:
        A function `(address, paths, location, *, collection, loader, sync, layout, **arguments) -> Report`; the further
        arguments are those of `Embedder`.

    Raises:
        typer.BadParameter: The integration is not installed.
    """
    for entry in entry_points(group=CLUSTER_GROUP, name="ray"):
        return cast("Callable[..., Report]", entry.load())
    raise typer.BadParameter(
        "--ray needs the integration 'ray', which is not installed; at the root of a clone of the repository run: "
        "pip install . ./integrations/ray"
    )


def _entry_points() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}

"""What `qwen3vl doctor` finds, and how it is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3vl.cli.output import EXIT_FAILED, EXIT_OK, print_json, printable

State = Literal["ok", "note", "wrong"]
_STYLES: dict[State, str] = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: What was checked.
        state: `"ok"`, `"note"` (works, but worth knowing) or `"wrong"`.
        details: What was found, and how to repair it if it is wrong.
    """

    subject: str
    state: State
    details: str

    def to_dict(self) -> dict[str, str]:
        """Return the finding as `qwen3vl doctor --json` prints it; `what` and `told` are former names of two keys."""
        fields = {"subject": self.subject, "state": self.state, "details": self.details}
        return {**fields, "what": self.subject, "told": self.details}


def print_findings(findings: Sequence[Finding], *, console: Console, as_json: bool) -> int:
    """Print findings.

    Args:
        findings: The findings.
        console: Where the table goes.
        as_json: Whether they are printed as JSON.

    Returns:
        The exit code: 1 if something is wrong.
    """
    if as_json:
        print_json([finding.to_dict() for finding in findings])
    else:
        table = Table(show_header=False)
        for finding in findings:
            state = Text(finding.state, style=_STYLES[finding.state])
            table.add_row(finding.subject, state, Text(printable(finding.details)))
        console.print(table)
    return EXIT_FAILED if any(finding.state == "wrong" for finding in findings) else EXIT_OK

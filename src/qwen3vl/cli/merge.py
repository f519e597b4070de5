"""`qwen3vl merge`: a checkpoint with a LoRA adapter merged into it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from qwen3vl.cli.output import EXIT_OK, print_json
from qwen3vl.model.hub import resolve_checkpoint
from qwen3vl.model.merged_checkpoint import SOURCE_FILES, write_merged_checkpoint


def run_merge(base: str, adapter: str, out: str, *, revision: str | None, console: Console, as_json: bool) -> int:
    """Merge an adapter into a model, and write the result.

    Args:
        base: The model: hub id or folder, or `"tiny"` for the tiny embedding model.
        adapter: The adapter: hub id or folder.
        out: The folder to write to.
        revision: Branch, tag or commit of the model's repository.
        console: Where the summary goes.
        as_json: Whether it is printed as JSON.

    Returns:
        The exit code.
    """
    checkpoint = resolve_checkpoint(base, "embedding", revision, adapter, files=SOURCE_FILES)
    num_changed = write_merged_checkpoint(checkpoint, Path(out))
    if as_json:
        print_json({"out": out, "tensors_changed": num_changed})
    else:
        console.print(f"{num_changed} tensors changed, model written: {out}", markup=False)
    return EXIT_OK

"""The command line: `qwen3vl index`, `search`, `demo` and `doctor`."""

from qwen3vl.cli.app import main

__all__ = ["main"]

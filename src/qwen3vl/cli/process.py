"""The entry point of the process that runs one command."""

from __future__ import annotations

import gc
import sys
import traceback

GC_THRESHOLDS = (100_000, 20, 100)
"""Thresholds of the garbage collector's generations, in allocations and collections (Python's are 700, 10 and 10).

Importing torch and a store's client creates several hundred thousand objects that live as long as the process. With
Python's thresholds, the collector looks at all of them again and again, which takes a fifth of a short command's time.
"""


def run() -> None:
    """Run the command that the process was started with, and exit with its code.

    Raises:
        SystemExit: Always, with the exit code of `main`.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    from qwen3vl.cli.app import main
    from qwen3vl.cli.output import EXIT_FAILED, printable

    try:
        code = main()
    except Exception:  # the interpreter would print the message with its control characters
        sys.stderr.write(printable(traceback.format_exc()))
        code = EXIT_FAILED
    gc.freeze()  # the interpreter would search all objects for cycles once more before it ends
    sys.exit(code)

"""Programs whose Ray is not that of the other tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def start_program(module: str, *arguments: str, output: Any = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Start a program.

    Args:
        module: What to run.
        *arguments: Its arguments.
        output: A file for what it prints.
    """
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, text=True)


def run_program(module: str, *arguments: str) -> Any:
    """Run a program; return the line of JSON that it prints among Ray's.

    It prints into a file: processes of Ray outlive the program by half a minute, and would keep a pipe open.
    """
    with tempfile.TemporaryFile("w+") as file:
        return_code = start_program(module, *arguments, output=file).wait()
        file.seek(0)
        output = file.read()
    assert return_code == 0, output[-4000:]
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))

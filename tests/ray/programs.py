"""Programs whose Ray is not that of the other tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def start_program(module: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a program."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def run_program(module: str, *arguments: str) -> Any:
    """Run a program; return the line of JSON that it prints among Ray's."""
    program = start_program(module, *arguments)
    output, errors = program.communicate()
    assert program.returncode == 0, errors[-4000:]
    return json.loads(next(line for line in output.splitlines() if line.startswith("{")))

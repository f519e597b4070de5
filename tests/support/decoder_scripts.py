"""Scripts that use decoder processes, and how their processes are watched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
SCRIPT = """
import os, sys, threading
from pathlib import Path
from qwen3vl.media import MediaPolicy
from qwen3vl.media.isolation import decode
from tests.support import decoder_operations as operations

print("running", flush=True)
policy = MediaPolicy(isolated=True, seconds=float(sys.argv[2]))
decode(policy, operations.process_id)
{body}
"""


def start_script(body: str, started: Path, seconds: float = 600) -> subprocess.Popen[bytes]:
    """Start a script in a process group of its own.

    Args:
        body: Its last lines. They may use `operations`, `policy`, `decode` and the arguments, of which the first is
            `started`.
        started: A path for the script's use.
        seconds: The policy's limit of time.

    Returns:
        The process.
    """
    script = started.parent / "script.py"
    script.write_text(SCRIPT.format(body=body))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in [str(REPOSITORY), *sys.path] if path)}
    return subprocess.Popen(
        [sys.executable, script, started, str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def is_running(process_id: int) -> bool:
    """Return whether a process exists that has not ended; one that has ended may wait for its parent."""
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

"""Runs every install command of the documentation in an empty environment, from a clean copy of the tree.

Reads README.md, docs/*.md and integrations/*/README.md, and takes each command that begins with `pip install`,
`uv pip install` or `uv add` out of code blocks and inline code. Then, for each distinct command:

1. It is run as written, at the root of a copy that holds only what git would commit.
2. What it installs is imported, torch must not be loaded by that, nor be installed unless the command says so, and each
   version must equal the core's.
3. `qwen3vl doctor`, which runs the tiny model, must find nothing wrong; once for each way of installing.

An environment has several gigabytes of dependencies, so uv installs them first: it links them from its cache. pip then
finds them and resolves, builds and installs the packages of this repository itself. One command, `EMPTY`, is run by an
old pip too, in an environment that is really empty. With --full, every command is run by both versions of pip in empty
environments.

    python tools/check_install.py [--full] [--only TEXT]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".": ("qwen3vl", "qwen3vl"),
    "./integrations/qdrant": ("qwen3vl-qdrant", "qwen3vl_qdrant"),
    "./integrations/chroma": ("qwen3vl-chroma", "qwen3vl_chroma"),
    "./integrations/server": ("qwen3vl-server", "qwen3vl_server"),
    "./integrations/ray": ("qwen3vl-ray", "qwen3vl_ray"),
    "./integrations/mteb": ("qwen3vl-mteb", "qwen3vl_mteb"),
    "./integrations/langchain": ("langchain-qwen3-vl", "langchain_qwen3_vl"),
    "./integrations/llama-index": (
        "llama-index-qwen3-vl",
        "llama_index.embeddings.qwen3_vl, llama_index.postprocessor.qwen3_vl_rerank, llama_index.readers.qwen3_vl",
    ),
}
"""Directory as written in a command -> name of the distribution, modules to import."""
OLD_PIP, NEW_PIP = "pip==23.2", "pip"
TORCH, SERVER = ".[torch]", "./integrations/server"
"""What installs torch."""
EVAL, MMEB = ".[eval,torch]", ".[mmeb,torch]"
CORES = (".", TORCH, EVAL, MMEB, ".[vllm]")
"""The core with each of its extras."""
EMPTY = f'pip install "{TORCH}" ./integrations/qdrant'
"""The command that the old pip runs in an empty environment, where it installs the dependencies itself."""
UV_PYTEST = "uv run pytest"
TEST_TOOLS = ("pytest", "mypy", "ruff", "mkdocs", "transformers")
"""What `uv run --no-dev` must not install."""

_BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`((?:uv )?pip install [^`]+|uv add [^`]+)`")
_COMMAND = re.compile(r"^(?:uv pip|pip) install |^uv add ")


class CheckError(Exception):
    """A command of the documentation does not do what it says."""


@dataclass
class Command:
    """A command and the places where it stands, as `file:line`."""

    text: str
    places: list[str] = field(default_factory=list)


def find_commands(root: Path) -> list[Command]:
    """Return the distinct install commands of the documentation, in the order in which they stand."""
    found: dict[str, Command] = {}
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md")), *sorted(root.glob("integrations/*/README.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for offset, command in _commands_of(text):
            place = f"{page.relative_to(root).as_posix()}:{text.count(chr(10), 0, offset) + 1}"
            found.setdefault(command, Command(command)).places.append(place)
    return list(found.values())


def _commands_of(text: str) -> Iterator[tuple[int, str]]:
    for block in _BLOCK.finditer(text):
        offset = block.start(1)
        for line in block[1].splitlines(keepends=True):
            command = re.sub(r"\s+#.*", "", line).strip().removeprefix("$ ")
            if _COMMAND.match(command):
                yield offset, command
            offset += len(line)
    for inline in _INLINE.finditer(_BLOCK.sub(lambda block: "\n" * block[0].count("\n"), text)):
        # Blocks were replaced by as many lines, so the line number is right, whatever the offset.
        yield _offset_of_line(text, inline.string.count("\n", 0, inline.start())), " ".join(inline[1].split())


def _offset_of_line(text: str, line: int) -> int:
    return sum(len(each) for each in text.splitlines(keepends=True)[:line])


def copy_tree(target: Path) -> None:
    """Copy what git would commit: tracked files and new ones that are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def targets_of(command: str) -> list[str]:
    """Return the directories that a command installs, with extras; raises `CheckError` if an index has them."""
    words = [word.strip("\"'") for word in re.split(r"\s+", command.partition(" install ")[2]) if word]
    arguments = [word for word in words if not word.startswith("-")]
    ours = {distribution for distribution, _ in MODULES.values()}
    unavailable = [word for word in arguments if re.split(r"[\[<>=!~]", word)[0] in ours]
    if unavailable:
        raise CheckError(f"{', '.join(unavailable)}: the packages of this repository are on no public index")
    targets = [word for word in arguments if word.startswith(".")]
    unknown = [word for word in targets if word not in MODULES and word not in CORES]
    if unknown or not targets:
        raise CheckError(f"{', '.join(unknown) or 'nothing'} is not a directory of this repository")
    if not set(CORES).intersection(targets):
        raise CheckError("pip would look for qwen3vl on the index: name `.` too")
    return targets


def module_of(target: str) -> tuple[str, str]:
    """Return the distribution and the modules of a directory."""
    return MODULES["." if target in CORES else target]


def run(
    command: list[str] | str, cwd: Path, env: Mapping[str, str] | None = None, timeout: float = 1800
) -> subprocess.CompletedProcess[str]:
    """Run a command; raises `CheckError` with the end of its output where it fails."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=env,
        shell=isinstance(command, str),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        timeout=timeout,
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-25:])
        raise CheckError(f"{command if isinstance(command, str) else ' '.join(command)}\n{tail}")
    return done


class Environment:
    """A virtual environment in a temporary directory, activated for the commands that it runs."""

    def __init__(self, folder: Path, tree: Path) -> None:
        self.folder = folder
        self.tree = tree
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        shutil.rmtree(folder, ignore_errors=True)
        run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder)], tree)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "UV_PROJECT"))}
        self.env = {**kept, "VIRTUAL_ENV": str(folder), "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}"}

    def add_pip(self, pip: str) -> None:
        run(["uv", "pip", "install", "--quiet", pip], self.tree, self.env)

    def add_dependencies(self, targets: list[str]) -> None:
        """Install what the packages need, and not the packages."""
        names = [module_of(target)[0] for target in targets]
        run(["uv", "pip", "install", "--quiet", *targets], self.tree, self.env)
        run(["uv", "pip", "uninstall", "--quiet", *names], self.tree, self.env)
        # pip's own configuration may hold constraints that uv did not know; then pip would install it all again.
        self.env["PIP_CONFIG_FILE"] = os.devnull

    def check(self, targets: list[str], *, doctor: bool) -> None:
        """Import what was installed, compare versions, run the doctor."""
        lines = ["import sys, qwen3vl", "from importlib.metadata import version"]
        for target in targets:
            name, modules = module_of(target)
            lines += [
                f"import {modules}",
                f"assert 'torch' not in sys.modules, 'importing {name} loads torch'",
                f"assert version({name!r}) == qwen3vl.__version__, 'versions differ'",
            ]
        if not {TORCH, EVAL, MMEB, SERVER}.intersection(targets):
            lines.append(
                "from importlib.util import find_spec; assert find_spec('torch') is None, 'torch is installed'"
            )
        # In the environment, or in the copy: `-e` and uv, for packages of one workspace, install links to it.
        lines.append(
            f"assert qwen3vl.__file__.startswith(({str(self.folder)!r}, {str(self.tree)!r})), qwen3vl.__file__"
        )
        run([str(self.bin / "python"), "-c", "\n".join(lines)], self.folder, self.env)
        run(["uv", "pip", "check", "--quiet"], self.folder, self.env)
        if doctor:
            run([str(self.bin / "qwen3vl"), "doctor", "--json"], self.folder, self.env)


def check_pip(command: str, tree: Path, folder: Path, pip: str, *, empty: bool) -> None:
    """`pip install …`, by one version of pip."""
    started = time.monotonic()
    targets = targets_of(command)
    environment = Environment(folder, tree)
    environment.add_pip(pip)
    if not empty:
        environment.add_dependencies(targets)
    run(f"python -m {command}", tree, environment.env)
    environment.check(targets, doctor=empty or len(targets) == 1)
    say(f"    {pip}{', empty environment' if empty else ''}: {time.monotonic() - started:.0f} s")


def check_uv_pip(command: str, tree: Path, folder: Path) -> None:
    """`uv pip install …`."""
    started = time.monotonic()
    targets = targets_of(command)
    environment = Environment(folder, tree)
    run(command, tree, environment.env)
    environment.check(targets, doctor=len(targets) <= 2)
    say(f"    uv: {time.monotonic() - started:.0f} s")


def check_project(command: str, tree: Path, folder: Path) -> None:
    """`pip install uv && uv run …`, in a copy of its own; of `uv run pytest` only that tests are found."""
    started = time.monotonic()
    copy = folder.with_name("project")
    shutil.copytree(tree, copy)
    environment = Environment(folder, copy)
    environment.add_pip("pip")
    env = {name: value for name, value in environment.env.items() if name != "VIRTUAL_ENV"}
    if command.endswith(UV_PYTEST):
        command += " --collect-only tests/test_geometry.py"
    run(command, copy, env)
    if "--no-dev" in command:
        listed = run(["uv", "pip", "list", "--python", ".venv", "--format", "freeze"], copy, env).stdout
        names = {line.partition("==")[0].lower() for line in listed.splitlines()}
        if wrong := names.intersection(TEST_TOOLS):
            raise CheckError(f"{command} installs development tools: {', '.join(sorted(wrong))}")
    shutil.rmtree(copy)
    say(f"    {time.monotonic() - started:.0f} s")


def check_old_python(tree: Path, folder: Path) -> None:
    """An unsupported Python must be named as the reason; skipped where none is installed."""
    found = subprocess.run(
        ["uv", "python", "find", "--no-python-downloads", "<3.11"], capture_output=True, text=True, cwd=tree.parent
    )
    python = found.stdout.strip()
    say("an unsupported Python")
    if found.returncode or not python:
        say("    no Python before 3.11 is installed: skipped")
        return
    run(["uv", "venv", "--quiet", "--clear", "--seed", "--python", python, str(folder)], tree)
    done = subprocess.run(
        [str(folder / "bin" / "python"), "-m", "pip", "install", "."], cwd=tree, capture_output=True, text=True
    )
    if done.returncode == 0 or "requires a different Python" not in done.stderr or ">=3.11" not in done.stderr:
        raise CheckError(f"pip of {python} does not name the Python that is needed:\n{done.stderr[-1500:]}")
    say("    " + done.stderr.strip().splitlines()[-1])


def check(command: Command, tree: Path, folder: Path, *, full: bool) -> None:
    """Run one command as its kind asks for."""
    say(f"{command.text}   ({', '.join(command.places)})")
    if "uv run" in command.text:
        check_project(command.text, tree, folder)
    elif command.text.startswith("uv pip"):
        check_uv_pip(command.text, tree, folder)
    elif command.text.startswith("pip install uv"):
        say("    installs uv: nothing of this repository")
    elif command.text.startswith("pip"):
        check_pip(command.text, tree, folder, NEW_PIP, empty=full)
        if full or command.text == EMPTY:
            check_pip(command.text, tree, folder, OLD_PIP, empty=True)
    else:
        raise CheckError("this script does not know how to run it")


def say(text: str) -> None:
    """Print at once: what a step printed last tells where a run that hangs is."""
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs every install command of the documentation.")
    parser.add_argument("--full", action="store_true", help="each command by two pips in empty environments")
    parser.add_argument("--only", default="", metavar="TEXT", help="only commands that contain TEXT")
    options = parser.parse_args()
    commands = [command for command in find_commands(ROOT) if options.only in command.text]
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as made:
        tree, folder = Path(made).resolve() / "tree", Path(made).resolve() / "environment"
        copy_tree(tree)
        for command in commands:
            try:
                check(command, tree, folder, full=options.full)
            except CheckError as failure:
                say(f"    FAILED: {failure}")
                failures.append(command.text)
        if not options.only:
            try:
                check_old_python(tree, folder)
            except CheckError as failure:
                say(f"    FAILED: {failure}")
                failures.append("an unsupported Python")
    say(f"{len(commands)} install commands, {len(failures)} failed")
    return 1 if failures or not commands else 0


if __name__ == "__main__":
    sys.exit(main())

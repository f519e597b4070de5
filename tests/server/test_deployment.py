"""deploy/: the files are well-formed, and the options of `qwen3vl serve` in them exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qwen3vl.cli import main
from tests.server.test_serve import needs_entry_point
from tests.support.model_server import ModelServer
from tests.test_docs import ROOT

DEPLOY = ROOT / "deploy"


def compose(name: str) -> Any:
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def instructions() -> list[list[str]]:
    """The instructions of the Dockerfile, split at their first space."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return [line.split(" ", 1) for line in text.replace("\\\n", "").splitlines() if line]


def unit() -> dict[str, str]:
    lines = (DEPLOY / "qwen3vl.service").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def start_commands() -> dict[str, list[str]]:
    """What starts a server, by file."""
    entrypoint, default = (json.loads(rest) for name, rest in instructions() if name in ("ENTRYPOINT", "CMD"))
    return {
        "Dockerfile": [*entrypoint, *default],
        "compose.yaml": [*entrypoint, *compose("compose.yaml")["services"]["server"]["command"]],
        "qwen3vl.service": unit()["ExecStart"].removeprefix("/srv/qwen3vl/.venv/bin/").split(),
    }


@needs_entry_point
@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "qwen3vl.service"])
def test_options_exist(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, command, *arguments = start_commands()[name]
    assert (program, command) == ("qwen3vl", "serve")
    options = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    assert main(["serve", "--help"]) == 0
    existing = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    assert options <= existing


def test_server_behind_a_proxy_is_told_its_name() -> None:
    """The proxy of the example passes on the name that clients have used, which a server without keys must know."""
    _, _, section = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8").partition("## Below a path")
    (command,) = re.findall(r"^qwen3vl serve .*$", section, flags=re.MULTILINE)
    (name,) = re.findall(r"Embedder\(\"https://([^/]+)/", section)
    assert f"--allowed-host {name}" in command


def test_files_that_the_image_copies_are_in_its_context() -> None:
    ignored, *kept = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    assert ignored == "*"
    copied = {path for name, rest in instructions() if name == "COPY" for path in rest.split()[:-1]}
    for path in copied - {"--from=build", "/opt/qwen3vl"}:
        assert (ROOT / path).exists()
        assert f"!{path}" in kept


def test_build_arguments_that_are_named_exist() -> None:
    named: set[str] = set()
    for file in (DEPLOY / "Dockerfile", ROOT / "docs" / "deployment.md"):
        of_file = set(re.findall(r"--build-arg (\w+)", file.read_text(encoding="utf-8")))
        assert of_file
        named |= of_file
    assert named <= {rest.partition("=")[0] for name, rest in instructions() if name == "ARG"}


def test_version_of_qdrant_is_pinned() -> None:
    """To one that has everything that a store uses; `latest` would change with every pull."""
    name, _, version = compose("compose.yaml")["services"]["qdrant"]["image"].partition(":v")
    assert name == "qdrant/qdrant"
    major, minor = map(int, version.split("."))
    assert (major, minor) >= (1, 18)


def test_services_of_the_gpu_file_are_those_of_the_other() -> None:
    services = compose("compose.yaml")["services"]
    assert set(compose("compose.gpu.yaml")["services"]) <= set(services)
    build = services["server"]["build"]
    assert Path(DEPLOY / build["context"] / build["dockerfile"]).samefile(DEPLOY / "Dockerfile")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_unit_is_valid(tmp_path: Path) -> None:
    text = (DEPLOY / "qwen3vl.service").read_text(encoding="utf-8")
    file = tmp_path / "qwen3vl.service"
    file.write_text(text.replace("/srv/qwen3vl/.venv/bin/qwen3vl", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="this is no clone")
def test_files_with_keys_are_private() -> None:
    """Others cannot read what the commands of the docs write, and it is not committed."""
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if "openssl rand" in line]
    files = [line.rpartition("> ")[2].rstrip(")") for line in commands]
    assert files == ["/etc/qwen3vl.env", "deploy/.env"]
    assert all(line.startswith("(umask 077; ") for line in commands)
    assert subprocess.run(["git", "check-ignore", "--quiet", "deploy/.env"], cwd=ROOT, check=False).returncode == 0


def test_health_check_asks_the_server_itself(tiny_server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever proxy the environment of the container names."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (check,) = (rest.partition(" CMD ")[2] for name, rest in instructions() if name == "HEALTHCHECK")
    program, *arguments = json.loads(check)
    assert program == "python"
    for port, healthy in ((tiny_server.port, True), (9, False)):
        command = [sys.executable, *(argument.replace(":8000/", f":{port}/") for argument in arguments)]
        assert (subprocess.run(command, capture_output=True, check=False).returncode == 0) == healthy

"""`qwen3vl doctor`: what is installed, what runs where, and what is wrong."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from qwen3vl.cli.findings import Finding, print_findings
from qwen3vl.cli.server_doctor import check_server

PACKAGES = (
    *("qwen3vl", "qwen3vl-qdrant", "torch", "tokenizers", "safetensors", "huggingface-hub"),
    *("av", "pypdfium2", "pillow", "qdrant-client"),
)
OPTIONAL_PACKAGES = frozenset({"qwen3vl-qdrant", "qdrant-client"})
TORCH_PACKAGES = frozenset({"torch", "tokenizers", "safetensors", "huggingface-hub"})
"""What `qwen3vl[torch]` installs."""
_INSTALL = 'at the root of a clone run: pip install ".[torch]" ./integrations/qdrant'


def run_doctor(url: str | None, *, console: Console, as_json: bool) -> int:
    """Run all checks and print what they found.

    Args:
        url: The server to check; None checks this installation.
        console: Where the table goes.
        as_json: Whether the findings are printed as JSON.

    Returns:
        The exit code: 1 if something is wrong.

    Raises:
        ValueError: The URL is none.
    """
    findings = _check_installation() if url is None else check_server(url)
    return print_findings(findings, console=console, as_json=as_json)


def _check_installation() -> list[Finding]:
    findings = [
        *_check_packages(),
        *_run("video decoders", _check_video_decoders),
        *_run("image decoders", _check_image_decoders),
        *_run("stores", _check_stores),
    ]
    if find_spec("torch") is None:
        details = f"only in servers, by their URLs, since torch is not installed; for models here, {_INSTALL}"
        findings.append(Finding("models run", "note", details))
    else:
        findings += _run("models run on", _check_devices)
        findings += _run("models downloaded", _check_hub_cache)
        findings += _run("test run", _check_model_runs)
    return findings


def _run(subject: str, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of a check. Any error of it is one, such as a library that is installed and cannot load."""
    try:
        return check()
    except Exception as error:
        return [Finding(subject, "wrong", f"{type(error).__name__}: {error}")]


def _check_packages() -> list[Finding]:
    findings = [Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in PACKAGES:
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            optional = name in OPTIONAL_PACKAGES or (name in TORCH_PACKAGES and find_spec("torch") is None)
            findings.append(Finding(name, "note" if optional else "wrong", f"not installed; {_INSTALL}"))
    return findings


def _check_devices() -> list[Finding]:
    import torch

    from qwen3vl.engine import choose_devices, choose_dtype

    (device,) = choose_devices("auto")
    dtype = str(choose_dtype("auto", device)[0]).removeprefix("torch.")
    details = f"{device}, {dtype}, {os.cpu_count()} CPU cores"
    findings = [Finding("models run on", "ok" if device.type != "cpu" else "note", details)]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        findings.append(Finding(f"cuda:{index}", "ok", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    if device.type == "cpu":
        details = "float32 takes about 8.5 GB of memory for each model and is slow; they are meant for a GPU"
        findings.append(Finding("the 2B models here", "note", details))
    return findings


def _check_video_decoders() -> list[Finding]:
    import av

    codecs = [name for name in ("h264", "hevc", "vp9", "av1", "mpeg4") if name in av.codecs_available]
    return [Finding("video decoders", "ok" if "h264" in codecs else "wrong", ", ".join(codecs) or "none")]


def _check_image_decoders() -> list[Finding]:
    from PIL import features

    missing = [name for name in ("jpg", "webp", "avif", "libtiff") if not features.check(name)]
    details = f"missing: {', '.join(missing)}" if missing else "all"
    return [Finding("image decoders", "note" if missing else "ok", details)]


def _check_stores() -> list[Finding]:
    integrations = [entry.value for entry in entry_points(group="qwen3vl.stores")]
    if integrations:
        return [Finding("stores", "ok", ", ".join(integrations))]
    return [Finding("stores", "note", f"none; index and search need one: {_INSTALL}")]


def _check_hub_cache() -> list[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(path.name for path in Path(HF_HUB_CACHE).glob("models--Qwen--Qwen3-VL-*"))
    names = ", ".join(name.removeprefix("models--").replace("--", "/") for name in folders)
    details = names or f"none in {HF_HUB_CACHE}; the first use of a model downloads it"
    return [Finding("models downloaded", "ok" if folders else "note", details)]


def _check_model_runs() -> list[Finding]:
    """Run the tiny model: whether the engine works on this machine at all."""
    import numpy as np

    from qwen3vl.embedder import Embedder

    vector = Embedder("tiny").embed("a red circle on the left")[0]
    valid = bool(np.isfinite(vector).all()) and abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    details = f"the tiny model returns a vector of {len(vector)} values"
    return [Finding("test run", "ok" if valid else "wrong", details)]

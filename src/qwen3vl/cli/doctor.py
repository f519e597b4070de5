"""`qwen3vl doctor`."""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from qwen3vl.cli import EXIT_FAILED, print_json

PACKAGES = (
    *("qwen3vl", "qwen3vl-qdrant", "torch", "tokenizers", "safetensors", "huggingface-hub"),
    *("av", "pypdfium2", "pillow", "qdrant-client"),
)
OPTIONAL = {"qwen3vl-qdrant", "qdrant-client"}
_STYLE = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: `state` is ok, note (works, but worth knowing) or wrong."""

    what: str
    state: Literal["ok", "note", "wrong"]
    told: str


def run(options: argparse.Namespace, console: Console) -> int:
    findings = [*_packages(), *_machine(), *_media(), _stores(), _hub(), _answer()]
    if options.json:
        print_json([{"what": each.what, "state": each.state, "told": each.told} for each in findings])
    else:
        table = Table(show_header=False)
        for each in findings:
            table.add_row(each.what, Text(each.state, style=_STYLE[each.state]), Text(each.told))
        console.print(table)
    return EXIT_FAILED if any(each.state == "wrong" for each in findings) else 0


def _packages() -> list[Finding]:
    findings = [Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")]
    for name in PACKAGES:
        try:
            findings.append(Finding(name, "ok", version(name)))
        except PackageNotFoundError:
            state: Literal["note", "wrong"] = "note" if name in OPTIONAL else "wrong"
            findings.append(Finding(name, state, f"not installed: pip install {name}"))
    return findings


def _machine() -> list[Finding]:
    import torch

    from qwen3vl.engine import choose_devices, choose_dtype

    (device,) = choose_devices("auto")
    dtype = str(choose_dtype("auto", device)[0]).removeprefix("torch.")
    told = f"{device}, {dtype}, {os.cpu_count()} CPU cores"
    findings = [Finding("models run on", "ok" if device.type != "cpu" else "note", told)]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        findings.append(Finding(f"cuda:{index}", "ok", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"))
    if device.type == "cpu":
        findings.append(
            Finding(
                "the 2B models here",
                "note",
                "float32 takes about 8.5 GB of memory each and runs slowly; a GPU is meant",
            )
        )
    return findings


def _media() -> list[Finding]:
    import av
    from PIL import features

    codecs = [name for name in ("h264", "hevc", "vp9", "av1", "mpeg4") if name in av.codecs_available]
    missing = [name for name in ("jpg", "webp", "avif", "libtiff") if not features.check(name)]
    return [
        Finding("video decoders", "ok" if "h264" in codecs else "wrong", ", ".join(codecs) or "none"),
        Finding(
            "picture decoders", "note" if missing else "ok", f"missing: {', '.join(missing)}" if missing else "all"
        ),
    ]


def _stores() -> Finding:
    found = [entry.value for entry in entry_points(group="qwen3vl.stores")]
    if found:
        return Finding("stores", "ok", ", ".join(found))
    return Finding("stores", "note", "none: pip install 'qwen3vl[qdrant]' for index and search")


def _hub() -> Finding:
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = sorted(path.name for path in Path(HF_HUB_CACHE).glob("models--Qwen--Qwen3-VL-*"))
    told = ", ".join(name.removeprefix("models--").replace("--", "/") for name in folders)
    return Finding(
        "models downloaded", "ok" if folders else "note", told or f"none in {HF_HUB_CACHE}; first use downloads"
    )


def _answer() -> Finding:
    """The tiny model, run: whether the engine works here at all."""
    import numpy as np

    from qwen3vl.embedder import Embedder

    try:
        vector = Embedder("tiny").embed("a red circle on the left")[0]
    except Exception as error:  # whatever is wrong is what the doctor is asked for
        return Finding("test run", "wrong", f"{type(error).__name__}: {error}")
    good = bool(np.isfinite(vector).all()) and abs(float(np.linalg.norm(vector)) - 1) < 1e-5
    return Finding("test run", "ok" if good else "wrong", f"the tiny model gives a vector of {len(vector)} values")

"""Layers below the model can be imported without torch: they start fast, and work where torch is not installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pkgutil import walk_packages

import pytest

WITHOUT_TORCH = (
    *("types", "errors", "hashing", "inputs", "media", "recipe", "documents", "settings", "results"),
    *("processing.geometry", "processing.templates", "processing.mrope", "processing.tokenizer", "processing.fitting"),
    *("stores", "ingestion", "loaders", "retriever", "adapters", "evaluation"),
    *("wire", "backends", "client", "vllm", "embedder", "reranker"),
)


def modules(name: str) -> list[str]:
    """Return a module and, if it is a package, all modules in it."""
    module = import_module(name)
    submodules = walk_packages(getattr(module, "__path__", ()), prefix=f"{name}.")
    return [name, *(submodule.name for submodule in submodules)]


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_module_is_imported_without_torch(name: str) -> None:
    imports = "\n".join(f"import {module}" for module in modules(f"qwen3vl.{name}"))
    script = f"import sys\n{imports}\nassert 'torch' not in sys.modules, sorted(sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_packages_are_walked() -> None:
    """The list of a package's modules is not empty by mistake."""
    assert {"qwen3vl.media", "qwen3vl.media.videos", "qwen3vl.media.preview"} <= set(modules("qwen3vl.media"))
    assert "qwen3vl.stores.base" in modules("qwen3vl.stores")

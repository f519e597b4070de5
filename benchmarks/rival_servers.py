"""Servers of other projects with a checkpoint of ours, as `benchmarks.server` starts them.

Each runs by the interpreter of an environment of its own (`benchmarks/README.md` says how to make it), computes in
float32 on all cores, and gets whole prompts as `input` of `/v1/embeddings`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any

import httpx
from safetensors.torch import load_file, save_file

from benchmarks.vllm_side import SETTINGS, environment

START_S = 900.0
"""vLLM compiles a model at its first start."""
END_S = 30.0
_NEWLINE, _NEWLINE_ID = "Ċ", 198
"""The token of a newline in Qwen's vocabulary."""


@contextmanager
def vllm_server(python: Path, checkpoint: Path, threads: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start vLLM's server of an embedding model.

    Args:
        python: The interpreter of an environment with vLLM.
        checkpoint: The embedding model.
        threads: Number of threads that compute.

    Yields:
        The server's URL, and its process.
    """
    options = ["--max-model-len", str(SETTINGS["max_model_len"]), "--block-size", str(SETTINGS["block_size"])]
    options += ["--enable-prefix-caching", "--limit-mm-per-prompt", '{"image": 0, "video": 0}']
    options += ["--dtype", "float32", "--runner", "pooling", "--disable-uvicorn-access-log"]
    port = _free_port()
    command = [python, "-P", "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoint, *options]
    # The engine has a process of its own there. It would keep one core free for the one that answers.
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
    variables = environment(threads) | {"VLLM_CPU_OMP_THREADS_BIND": cores}
    del variables["VLLM_ENABLE_V1_MULTIPROCESSING"]
    with _running([*map(str, command), "--host", "127.0.0.1", "--port", str(port)], variables, port) as server:
        yield server


@contextmanager
def infinity_server(python: Path, checkpoint: Path, threads: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start infinity's server of an embedding model.

    Args:
        python: The interpreter of an environment with infinity.
        checkpoint: The embedding model.
        threads: Number of threads that compute.

    Yields:
        The server's URL, and its process.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    options = ["--engine", "torch", "--device", "cpu", "--dtype", "float32", "--no-bettertransformer"]
    options += ["--batch-size", "64", "--url-prefix", "/v1", "--host", "127.0.0.1", "--log-level", "error"]
    port = _free_port()
    with tempfile.TemporaryDirectory(dir=checkpoint.parent) as folder:
        write_text_model(checkpoint, Path(folder))
        command = [python.parent / "infinity_emb", "v2", "--model-id", folder, *options, "--port", port]
        with _running(list(map(str, command)), variables, port) as server:
            yield server


def write_text_model(checkpoint: Path, folder: Path) -> None:
    """Write the language model of a checkpoint as sentence-transformers 3 loads it.

    infinity takes whatever has a vision tower for a model like CLIP.

    Args:
        checkpoint: The embedding model.
        folder: An empty folder.
    """
    shutil.copy(checkpoint / "tokenizer_config.json", folder)
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    _append_newline(tokenizer["post_processor"]["processors"][-1])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    text_config = json.loads((checkpoint / "config.json").read_text())["text_config"]
    config = text_config | {"architectures": ["Qwen3VLTextModel"], "model_type": "qwen3_vl_text"}
    prefix = "model.language_model."
    weights = load_file(checkpoint / "model.safetensors")
    weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    parts = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(parts.items())
    ]
    pooling = {"word_embedding_dimension": text_config["hidden_size"], "pooling_mode_mean_tokens": False}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling | {"pooling_mode_lasttoken": True}))
    (folder / "2_Normalize").mkdir()


def _append_newline(template: dict[str, Any]) -> None:
    """Let a tokenizer add the newline at the end of a prompt, which sentence-transformers 3 strips from texts."""
    newline = {"SpecialToken": {"id": _NEWLINE, "type_id": 0}}
    template["single"].insert(1, newline)
    template["special_tokens"][_NEWLINE] = {"id": _NEWLINE, "ids": [_NEWLINE_ID], "tokens": [_NEWLINE]}


def _free_port() -> int:
    with socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def _running(
    command: Sequence[str], variables: dict[str, str], port: int
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start a server, wait until it is healthy, and end it with SIGTERM."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=variables, stdout=output, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        url = f"http://127.0.0.1:{port}"
        try:
            if not _becomes_healthy(url, process):
                output.seek(0)
                raise SystemExit(f"{' '.join(command)} did not start:\n{output.read().decode()[-3000:]}")
            yield url, process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
            with suppress(ProcessLookupError):  # its own processes may live longer
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _becomes_healthy(url: str, process: subprocess.Popen[str]) -> bool:
    """Wait for a server; return whether it answers."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    return False

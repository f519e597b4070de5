"""vLLM beside this package: `VllmModel`, which `benchmarks.rivals` asks, and the process that answers it.

vLLM pins other versions of torch and transformers than this package allows, so it needs an environment of its own.
Whoever imports this file needs no vLLM; the process, which runs the same file with that environment's interpreter,
needs no `qwen3vl`. They exchange lines of JSON over the process's standard input and output; images are passed as
paths, and vectors and scores come back in NumPy files.

The settings are the fastest that were found on two cores; the comments say what the others cost.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

SETTINGS: dict[str, Any] = {
    "runner": "pooling",
    "dtype": "float32",
    "max_model_len": 4096,
    # Only whole blocks of a shared prefix are kept. The default of 128 tokens is longer than what a reranker's prompts
    # share, and the attention for CPUs takes multiples of 32 only.
    "block_size": 32,
    "enable_prefix_caching": True,
}
RERANKER_SETTINGS: dict[str, Any] = {
    "hf_overrides": {
        "architectures": ["Qwen3VLForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }
}
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
"""What stands for an image in a prompt."""


def embedding_prompt(content: str) -> str:
    """Return the whole prompt of an embedding model.

    Args:
        content: A text, or `IMAGE`.
    """
    return (
        "<|im_start|>system\nRepresent the user's input.<|im_end|>\n"
        f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
    )


def reranking_prompt(query: str, document: str) -> str:
    """Return the whole prompt of a reranker.

    Args:
        query: A text, or `IMAGE`.
        document: The same.
    """
    return (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
        "<|im_start|>user\n<Instruct>: Given a search query, retrieve relevant candidates that answer the query."
        f"<Query>:{query}\n<Document>:{document}<|im_end|>\n<|im_start|>assistant\n"
    )


class VllmModel:
    """A checkpoint that vLLM has loaded in a process of its own.

    Args:
        python: The interpreter of an environment with vLLM.
        folder: The checkpoint.
        reranker: Whether it is a reranker.
        images: Number of images that a prompt may have, 0 or 1.
        threads: Number of threads that compute.
    """

    def __init__(self, python: Path, folder: Path, *, reranker: bool, images: int, threads: int) -> None:
        settings = SETTINGS | (RERANKER_SETTINGS if reranker else {})
        settings["limit_mm_per_prompt"] = {"image": images, "video": 0}
        self._answers = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [python, "-P", __file__, folder, json.dumps(settings)],
            env=environment(threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        loaded = self._read()
        if loaded["threads"] != threads:
            raise RuntimeError(f"vLLM computes in {loaded['threads']} threads instead of {threads}")
        self.name = f"vLLM {loaded['version']}"

    def __call__(self, prompts: Sequence[str], image: str | None = None) -> np.ndarray[Any, Any]:
        """Return vectors of shape (num_prompts, hidden_size), or scores of shape (num_prompts,), as float32.

        Args:
            prompts: Whole prompts.
            image: Path of the image that each of them shows.
        """
        path = Path(self._answers.name) / "answers.npy"
        self._ask({"prompts": list(prompts), "image": image, "answers": str(path)})
        answers: np.ndarray[Any, Any] = np.load(path)
        return answers

    def reset(self) -> None:
        """Drop what vLLM has kept of earlier calls: prefixes, processed images and their features."""
        self._ask({"reset": True})

    def _ask(self, request: dict[str, Any]) -> None:
        if self._process.stdin is None:
            raise RuntimeError("the process has no standard input")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        self._read()

    def _read(self) -> dict[str, Any]:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"vLLM ended with status {self._process.wait()}; what it printed says why")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.communicate()
        self._answers.cleanup()


def environment(threads: int) -> dict[str, str]:
    """Return the environment variables of vLLM's process.

    Args:
        threads: Number of threads that compute.
    """
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    variables |= {
        # The engine then runs in this process and computes on all cores. In a process of its own it would leave one to
        # its scheduler: of two cores, half.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; more than the largest call needs
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    return variables


def serve(folder: str, settings: dict[str, Any]) -> None:
    """Load a checkpoint and answer requests until the input ends.

    Args:
        folder: The checkpoint.
        settings: Arguments of `vllm.LLM`.
    """
    # Whatever vLLM prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import torch
    import vllm
    from PIL import Image

    model = vllm.LLM(folder, **settings)
    answers.write(json.dumps({"version": vllm.__version__, "threads": torch.get_num_threads()}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        if "reset" in request:
            model.reset_prefix_cache()
            model.reset_mm_cache()
            model.llm_engine.reset_encoder_cache()
        else:
            prompts: list[Any] = request["prompts"]
            if request["image"]:
                data = {"image": Image.open(request["image"])}
                prompts = [{"prompt": prompt, "multi_modal_data": data} for prompt in prompts]
            if "hf_overrides" in settings:
                values = [output.outputs.probs[0] for output in model.classify(prompts, use_tqdm=False)]
            else:
                values = [output.outputs.embedding for output in model.embed(prompts, use_tqdm=False)]
            np.save(request["answers"], np.asarray(values, dtype=np.float32))
        answers.write("{}\n")


if __name__ == "__main__":
    serve(sys.argv[1], json.loads(sys.argv[2]))

"""Embeds and loads the whole corpus, and prints what became of each file and of the memory, as JSON.

python -m tests.support.hostile.child SECONDS MEMORY
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen3vl.errors import InputError
from qwen3vl.media.policy import UNTRUSTED_POLICY
from tests.support.hostile.corpus import CORPUS
from tests.support.hostile.fuzzing import Fuzzer
from tests.support.hostile.process import PeakOfChildren, peak_memory, reset_peak_memory


def run_corpus(seconds: float, memory: int) -> dict[str, Any]:
    """Embed the corpus in one batch, beside a thread that loads it, and watch the memory."""
    with tempfile.TemporaryDirectory() as name:
        policy = replace(UNTRUSTED_POLICY, folders=(name,), seconds=seconds, memory=memory)
        fuzzer = Fuzzer.start(Path(name), policy)
        folder = Path(name, "files")
        folder.mkdir()
        files = list(CORPUS.values())
        for file in files:
            file.write(folder)
        reset_peak_memory()
        before = peak_memory(os.getpid())
        with PeakOfChildren() as decoders, ThreadPoolExecutor(1) as executor:
            loading = executor.submit(fuzzer.load, files, folder)
            errors = fuzzer.embed(files, folder)
            loaded = loading.result()
        growth = peak_memory(os.getpid()) - before
    return {
        "errors": {name: error and error.reason for name, error in errors.items()},
        "expected_type": {
            name: error is None or isinstance(error.__cause__, InputError) for name, error in errors.items()
        },
        "loaded": loaded,
        "growth": growth,
        "decoder_peak": decoders.peak,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    print(json.dumps(run_corpus(float(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201

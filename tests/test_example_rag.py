"""`examples/multimodal_rag.py`: the pages that it finds, and what the models that answer are asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pytest

from examples import multimodal_rag
from qwen3vl.inputs.data_uri import decode_data_uri
from qwen3vl.media.pdf import page_texts
from qwen3vl.media.preview import thumbnail
from tests.support import http_thread
from tests.support.json_requests import read_json, send_json

KEY = "a key of this test"
ANSWER = "A star [page 4] and a ring [page 11], but no cross [page 5]."


class ChatServer:
    """Stands in for a vision model on another machine: answers as OpenAI's chat completions do, and keeps requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = read_json(self)
                server.requests.append((self.path, self.headers["Authorization"], body))
                message = {"role": "assistant", "content": ANSWER}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                completion = {"id": "1", "object": "chat.completion", "created": 0, "model": body["model"]}
                send_json(self, 200, {**completion, "choices": [choice]})

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"


@pytest.fixture
def chat_server() -> Iterator[ChatServer]:
    server = ChatServer()
    http_thread.start(server.http)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def slides(tmp_path: Path) -> tuple[Path, str, list[int]]:
    """A PDF, a question, and the pages that answer it, by the text that is written into them."""
    pdf = tmp_path / "slides.pdf"
    question, _ = multimodal_rag.draw_slides(pdf)
    texts = [text for text, _ in page_texts(pdf, 1, 12)]
    caption = "a red star at the top and a blue ring at the bottom left"
    assert caption in question
    pages = [number for number, text in enumerate(texts, start=1) if (text or "").strip() == caption]
    assert len(pages) == 3
    assert pages != [1, 2, 3]
    return pdf, question, pages


@pytest.mark.parametrize("name", ["slides.pdf", "folder/../slides.pdf", "linked/slides.pdf"])
def test_found_pages_are_the_right_ones(
    slides: tuple[Path, str, list[int]], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pdf, question, pages = slides
    monkeypatch.chdir(pdf.parent)
    Path("folder").mkdir()
    Path("linked").symlink_to(pdf.parent)
    multimodal_rag.main([name, question])
    output = capsys.readouterr().out
    rows = re.findall(r"^ *(\d+) +[\d.]+ +([\d.]+)$", output, re.MULTILINE)
    assert sorted(int(page) for page, _ in rows) == pages
    assert all(float(score) > 0.5 for _, score in rows)
    assert "answer" not in output


def test_server_gets_the_pages_in_order_with_their_numbers(
    slides: tuple[Path, str, list[int]],
    chat_server: ChatServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pdf, question, pages = slides
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    multimodal_rag.main([str(pdf), question, "--answer-url", chat_server.url, "--answer-model", "a-vision-model"])
    ((path, authorization, body),) = chat_server.requests
    assert (path, authorization) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert body["model"] == "a-vision-model"
    (message,) = body["messages"]
    assert message["role"] == "user"
    *parts, last = message["content"]
    assert [part["text"] for part in parts[::2]] == [f"Page {number}:" for number in pages]
    assert last["text"].endswith(f"Question: {question}")
    images = [thumbnail(decode_data_uri(part["image_url"]["url"]), side=144) for part in parts[1::2]]
    assert all(part["image_url"]["url"].startswith("data:image/jpeg;base64,") for part in parts[1::2])
    assert [most_similar_page(np.asarray(image), pdf) for image in images] == pages

    output = capsys.readouterr().out
    assert f"answer, from pages {pages} of slides.pdf: {ANSWER}" in output
    assert "cited: [4, 5, 11]; not among its pages: [5]" in output


def most_similar_page(image: np.ndarray[Any, Any], pdf: Path) -> int:
    """Return the number of the page that an image shows."""
    with pdfium.PdfDocument(pdf) as document:
        pages = [np.asarray(page.render(scale=0.5).to_pil().convert("RGB"), dtype=float) for page in document]
    return int(np.argmin([np.abs(page - image).mean() for page in pages])) + 1


def test_local_model_gets_the_pages_in_order_with_their_numbers(
    slides: tuple[Path, str, list[int]],
    checkpoints: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`Qwen3VLForConditionalGeneration` of golden size with random weights; its `generate` is watched, and real."""
    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    pdf, question, pages = slides
    calls: list[tuple[dict[str, Any], Any]] = []
    generate = Qwen3VLForConditionalGeneration.generate

    def watched(self: Any, **inputs: Any) -> Any:
        tokens = generate(self, **inputs)
        calls.append((inputs, tokens))
        return tokens

    monkeypatch.setattr(Qwen3VLForConditionalGeneration, "generate", watched)
    monkeypatch.setattr(multimodal_rag, "MAX_TOKENS", 8)
    folder = str(checkpoints / "reranker")
    multimodal_rag.main([str(pdf), question, "--answer-model", folder])

    ((inputs, tokens),) = calls
    processor: Any = AutoProcessor.from_pretrained(folder)  # type: ignore[no-untyped-call]
    prompt = re.sub(r"(<\|image_pad\|>)+", "<image>", processor.decode(inputs["input_ids"][0]))
    expected = "".join(f"Page {number}:<|vision_start|><image><|vision_end|>" for number in pages)
    assert prompt.startswith(f"<|im_start|>user\n{expected}")
    assert prompt.endswith(f"Question: {question}<|im_end|>\n<|im_start|>assistant\n")
    assert inputs["image_grid_thw"].tolist() == [[1, 64, 64]] * len(pages)  # 1,024 pixels, in patches of 16
    written = tokens[0, inputs["input_ids"].shape[1] :]
    assert 1 <= len(written) <= 8
    answer = processor.decode(written, skip_special_tokens=True).strip()
    assert f"answer, from pages {pages} of slides.pdf: {answer}\n" in capsys.readouterr().out


def test_a_pdf_without_a_question_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        multimodal_rag.main(["report.pdf"])
    assert "a question is missing: write it after the PDF" in capsys.readouterr().err

"""Multimodal RAG: pages of a PDF are indexed, searched and reranked, and a vision model answers from several of them.

    python examples/multimodal_rag.py report.pdf "How much was spent on travel?" \
        --model Qwen/Qwen3-VL-Embedding-2B --reranker Qwen/Qwen3-VL-Reranker-2B \
        --answer-url http://localhost:8001/v1 --answer-model Qwen/Qwen3-VL-8B-Instruct

With --answer-url, any server answers that speaks OpenAI's chat completions (its key is read from OPENAI_API_KEY);
without it, transformers runs --answer-model in this process. Without --answer-model, only the pages are printed.
Without a PDF, slides are drawn, and the question is about the three that show the same scene.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from qwen3vl import Embedder, Loader, Reranker, Retriever, ingest, open_store
from qwen3vl.demo.library import write_slides
from qwen3vl.demo.scenes import Scene, Thing, near_miss, random_scene
from qwen3vl.media.preview import data_uri, thumbnail

NUM_CANDIDATES, NUM_PAGES = 10, 3  # pages that the reranker scores, and that the vision model sees
PAGE_PIXELS = 1024  # longer side of a page, as the vision model sees it
MAX_TOKENS = 256  # of the answer of a model in this process
TASK = (
    "Answer the question from these pages of a document and from nothing else. After each statement, name the page "
    "that it is from, as [page 3]. If the pages do not answer the question, say so."
)


def draw_slides(path: Path) -> tuple[str, list[int]]:
    """Draw a PDF; return a question, and the numbers of the pages that answer it."""
    random = Random(8)
    asked = Scene((Thing("red", "star", 1), Thing("blue", "ring", 6)))
    scenes = [asked, near_miss(asked, random), near_miss(asked, random), random_scene(random)]
    slides = [Scene(scene.things, background) for scene in scenes for background in range(3)]
    random.shuffle(slides)
    write_slides(path, slides, random)
    answering = [number for number, slide in enumerate(slides, start=1) if slide.key == asked.key]
    return f"Which pages show {asked.caption()}?", answering


def write_prompt(question: str, pages: dict[int, Image.Image], image_part: Callable[[Image.Image], Any]) -> Any:
    """Return the messages of a chat: the pages, each after its number, and the question."""
    content: list[Any] = []
    for number, image in pages.items():
        content += [{"type": "text", "text": f"Page {number}:"}, image_part(image)]
    return [{"role": "user", "content": [*content, {"type": "text", "text": f"{TASK}\n\nQuestion: {question}"}]}]


def ask_server(url: str, model: str, question: str, pages: dict[int, Image.Image]) -> str:
    """Return the answer of a model behind an API like OpenAI's."""
    from openai import OpenAI

    messages = write_prompt(question, pages, lambda image: {"type": "image_url", "image_url": {"url": data_uri(image)}})
    client = OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"))
    completion = client.chat.completions.create(model=model, messages=messages)
    return completion.choices[0].message.content or ""


def ask_transformers(model: str, question: str, pages: dict[int, Image.Image]) -> str:
    """Return the answer of a model that runs in this process."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    messages = write_prompt(question, pages, lambda image: {"type": "image", "image": image})
    processor: Any = AutoProcessor.from_pretrained(model)  # type: ignore[no-untyped-call]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    vision_model: Any = AutoModelForImageTextToText.from_pretrained(model, dtype="auto")
    tokens = vision_model.to(device).generate(**inputs.to(device), max_new_tokens=MAX_TOKENS)
    return str(processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def main(arguments: list[str] | None = None) -> None:
    """Find the pages that answer a question, and let a vision model answer it from them."""
    parser = argparse.ArgumentParser(description="Multimodal RAG over the pages of a PDF.")
    parser.add_argument("pdf", type=Path, nargs="?", help="the document; without it, slides are drawn")
    parser.add_argument("question", nargs="?", default="", help="what to ask about the document")
    parser.add_argument("--store", default=":memory:", help="where its pages are indexed: a folder, or a server's URL")
    parser.add_argument("--model", default="tiny", help="an embedding model: a hub id, a folder, or a server's URL")
    parser.add_argument("--reranker", default="tiny", help="a reranker: a hub id, a folder, or a server's URL")
    parser.add_argument("--answer-url", help="base URL of a server that speaks OpenAI's chat completions")
    parser.add_argument("--answer-model", help="the server's model; or a hub id or folder, which transformers runs")
    options = parser.parse_args(arguments)
    if options.pdf is not None and not options.question:
        parser.error("a question is missing: write it after the PDF, in quotation marks")

    with tempfile.TemporaryDirectory() as folder, closing(open_store(options.store)) as store:
        pdf, question, right = options.pdf, options.question, set[int]()
        if pdf is None:
            pdf = Path(folder, "slides.pdf")
            question, answering = draw_slides(pdf)
            right = set(answering)
        source = str(pdf.resolve())  # as the loader names it

        with Embedder(options.model) as embedder, Reranker(options.reranker) as reranker:
            report = ingest(Loader().load(source), embedder, store)
            for name, reason in report.failed:
                print(f"not indexed: {name}: {reason}")
            retriever = Retriever(embedder, store, reranker, candidates=NUM_CANDIDATES)
            hits = retriever.search(question, NUM_PAGES, where={"source": source, "kind": "page"})

        print(f"question: {question}\n\npage  cosine  reranker")
        for hit in hits:
            print(f"{hit.document.page:4}{hit.score:8.2f}  {hit.rerank_error or format(hit.rerank_score, '8.2f')}")
        # In the order of the document, each under its own number.
        numbers = sorted(hit.document.page for hit in hits if hit.document.page is not None)
        if right:
            print(f"\npages that show it: {sorted(right)}, recall {len(right.intersection(numbers)) / len(right):.2f}")
        if options.answer_model is not None:
            pages = {number: thumbnail(f"{source}#page={number}", side=PAGE_PIXELS) for number in numbers}
            if options.answer_url is not None:
                answer = ask_server(options.answer_url, options.answer_model, question, pages)
            else:
                answer = ask_transformers(options.answer_model, question, pages)
            cited = sorted({int(number) for number in re.findall(r"\[page (\d+)\]", answer)})
            print(f"\nanswer, from pages {numbers} of {pdf.name}: {answer.strip()}")
            print(f"cited: {cited}; not among its pages: {[number for number in cited if number not in numbers]}")


if __name__ == "__main__":
    main()

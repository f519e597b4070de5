"""An application from end to end: load, add to a store, retrieve, rerank, and show the results to a chat model."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.vectorstores import VectorStore
from langchain_qwen3_vl import Qwen3VLLoader, Qwen3VLReranker, add_documents, content_blocks
from PIL import Image

from qwen3vl import BatchError, MediaPolicy
from tests.support.langchain_stores import source_name
from tests.support.sample_library import MOVER, SLIDE, STAR


class RecordingChatModel(GenericFakeChatModel):
    """A fake chat model that records the messages it gets."""

    recorded: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
        self.recorded.extend(messages)
        return super()._generate(messages, *args, **kwargs)


def test_library_is_loaded_stored_retrieved_reranked_and_shown(
    store: VectorStore, library_folder: Path, policy: MediaPolicy, library: list[Document]
) -> None:
    # Everything but the corrupt image is stored.
    loader = Qwen3VLLoader(library_folder)
    with pytest.raises(BatchError, match=r"1 of 38 .*corrupt") as caught:
        add_documents(store, loader.lazy_load())
    assert [Path(name).name for name in loader.skipped] == ["table.csv"]
    assert len([document_id for document_id in caught.value.results if document_id]) == len(library) == 37

    # The store's own retriever finds each kind of document, by text, image and video.
    retriever = store.as_retriever(search_kwargs={"k": 8})
    assert source_name(retriever.invoke(STAR.caption())[0]) == "star.png"
    assert source_name(retriever.invoke({"image": str(library_folder / "star.png")})[0]) == "star.png"  # type: ignore[arg-type]
    assert source_name(retriever.invoke({"video": str(library_folder / "mover.mp4")})[0]) == "mover.mp4"  # type: ignore[arg-type]
    assert "mover.mp4" in [source_name(document) for document in retriever.invoke(MOVER.caption())]
    notes = [
        document for document in retriever.invoke("a cyan square on the left") if source_name(document) == "notes.md"
    ]
    assert "cyan square" in notes[0].page_content

    # The reranker finds the page of the PDF.
    compression_retriever = ContextualCompressionRetriever(
        base_compressor=Qwen3VLReranker(model="tiny", policy=policy, top_n=2), base_retriever=retriever
    )
    best = compression_retriever.invoke(SLIDE.caption())
    assert source_name(best[0]) == "slides.pdf"
    assert best[0].metadata["locator"] == "page=2"
    assert best[0].metadata["relevance_score"] > 0.5

    # The chat model gets the page as an image.
    chat_model = RecordingChatModel(messages=iter([AIMessage("a yellow cross")]))

    def to_prompt(documents: list[Document]) -> ChatPromptValue:
        blocks: list[Any] = [{"type": "text", "text": "What is this?"}, *content_blocks(documents, policy=policy)]
        return ChatPromptValue(messages=[HumanMessage(content=blocks)])

    chain: Runnable[Any, Any] = compression_retriever | RunnableLambda(to_prompt) | chat_model
    assert chain.invoke(SLIDE.caption()).content == "a yellow cross"
    (message,) = chat_model.recorded
    image_block = next(block for block in message.content if block["type"] == "image")
    assert message.content_blocks
    image = Image.open(BytesIO(base64.b64decode(image_block["base64"]))).convert("RGB")
    pixels = np.asarray(image, dtype=float)
    # Coloured pixels of SLIDE, a yellow cross on white.
    red, green, blue = pixels.reshape(-1, 3)[pixels.std(axis=2).reshape(-1) > 40].mean(axis=0)
    assert min(red, green) > blue + 60

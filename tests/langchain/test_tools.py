"""A retriever as a tool says what images and videos it found."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import PromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore, VectorStoreRetriever
from langchain_qwen3_vl import (
    MediaKeys,
    Qwen3VLEmbeddings,
    Qwen3VLLoader,
    add_documents,
    create_retriever_tool,
    describe_document,
)

from tests.support.sample_library import STAR


@pytest.fixture
def retriever(embeddings: Qwen3VLEmbeddings, library_folder: Path) -> VectorStoreRetriever:
    store = InMemoryVectorStore(embeddings)
    add_documents(store, Qwen3VLLoader([library_folder / "star.png", library_folder / "slides.pdf"]).lazy_load())
    add_documents(store, [Document("a green circle")])
    return store.as_retriever(search_kwargs={"k": 1})


@pytest.mark.parametrize(
    ("document", "description"),
    [
        (Document("a text", metadata={"source": "notes.md"}), "a text"),
        (Document("", metadata={"image": "photo.png"}), "[image: photo.png]"),
        (Document("a caption", metadata={"image": "photo.png"}), "a caption\n[image: photo.png]"),
        (Document("", metadata={"image": "a#b/slides.pdf#page=2"}), "[image: a#b/slides.pdf, page 2]"),
        (
            Document("", metadata={"image": "x.pdf#page=3", "source": "x.pdf", "locator": "page=3"}),
            "[image: x.pdf, page 3]",
        ),
        (Document("", metadata={"video": "clip.mp4#t=10,25"}), "[video: clip.mp4, seconds 10 to 25]"),
        (Document("", metadata={"video": "clip.mp4#t=10"}), "[video: clip.mp4, from second 10]"),
        (
            Document("", metadata={"image": "data:image/png;base64,AAAA"}),
            "[image: stored in the document itself, without a source]",
        ),
        (Document("", metadata={"image": "data:image/png;base64,AAAA", "source": "a.png"}), "[image: a.png]"),
    ],
)
def test_description_names_source_and_place(document: Document, description: str) -> None:
    assert describe_document(document) == description


def test_description_of_other_keys_and_of_a_wrong_reference() -> None:
    photo = Document("", metadata={"photo": "photo.png"})
    assert describe_document(photo, MediaKeys(image=["photo"])) == "[image: photo.png]"
    description = describe_document(Document("a text", metadata={"image": 3}))
    assert description.startswith("a text\n[media that cannot be read: ")


def test_tool_message_names_the_image(retriever: VectorStoreRetriever) -> None:
    tool = create_retriever_tool(retriever, "library", "Finds images.", response_format="content_and_artifact")
    call: Any = {"name": "library", "args": {"query": STAR.caption()}, "id": "1", "type": "tool_call"}
    message = tool.invoke(call)
    assert isinstance(message, ToolMessage)
    assert str(message.content).startswith("[image: ")
    assert str(message.content).endswith("star.png]")
    assert message.artifact == retriever.invoke(STAR.caption())
    assert asyncio.run(tool.ainvoke(call)) == message
    assert create_retriever_tool(retriever, "library", "Finds images.").invoke("a green circle") == "a green circle"


def test_agent_reads_the_description(retriever: VectorStoreRetriever) -> None:
    agents = pytest.importorskip("langchain.agents", reason="agents need langchain", exc_type=ImportError)

    class ToolCallingModel(GenericFakeChatModel):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    call: Any = {"name": "library", "args": {"query": STAR.caption()}, "id": "1"}
    model = ToolCallingModel(messages=iter([AIMessage("", tool_calls=[call]), AIMessage("a red star")]))
    tool = create_retriever_tool(retriever, "library", "Finds images.")
    messages = agents.create_agent(model, [tool]).invoke({"messages": [HumanMessage("Where is the star?")]})["messages"]
    assert [type(message).__name__ for message in messages] == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert messages[2].content.endswith("star.png]")


async def test_tool_formats_documents_with_the_prompt(retriever: VectorStoreRetriever) -> None:
    prompt = PromptTemplate.from_template("<{kind}>{page_content}</{kind}>")
    tool = create_retriever_tool(retriever, "library", "Finds images.", document_prompt=prompt)
    text = await tool.ainvoke(STAR.caption())
    assert text == tool.invoke(STAR.caption())
    assert re.fullmatch(r"<picture>\[image: .*star\.png\]</picture>", text)

"""A retriever as a tool of an agent, which gets to know what images and videos were found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from langchain_core.callbacks import Callbacks
from langchain_core.documents import Document
from langchain_core.prompts import BasePromptTemplate, format_document
from langchain_core.runnables import Runnable
from langchain_core.tools import StructuredTool
from langchain_core.tools.retriever import RetrieverInput

from langchain_qwen3_vl.documents import from_langchain
from qwen3vl.adapters.media_keys import DEFAULT_KEYS, MediaKeys
from qwen3vl.errors import InputError
from qwen3vl.inputs import shorten

_MAX_NAME = 200


def create_retriever_tool(
    retriever: Runnable[str, list[Document]],
    name: str,
    description: str,
    *,
    media_keys: MediaKeys = DEFAULT_KEYS,
    document_prompt: BasePromptTemplate[str] | None = None,
    document_separator: str = "\n\n",
    response_format: Literal["content", "content_and_artifact"] = "content",
) -> StructuredTool:
    """Create a tool for agents that searches with a retriever, as LangChain's function of this name does.

    LangChain's tool shows only `page_content`, which is empty for most images and the encoded image for those of
    `Chroma.add_images`. This one shows what `describe_document` returns.

    Args:
        retriever: A retriever, or a chain of one with other runnables.
        name: The tool's name, for the language model.
        description: What the tool finds, for the language model.
        media_keys: Metadata keys of media references.
        document_prompt: Formats each document, with its metadata and, as `page_content`, what `describe_document`
            returns; None shows the latter alone.
        document_separator: Stands between the documents.
        response_format: `"content_and_artifact"` also returns the documents, as the artifact of the `ToolMessage`.

    Returns:
        The tool.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_core.vectorstores import InMemoryVectorStore
        from langchain_qwen3_vl import Qwen3VLEmbeddings, add_documents, create_retriever_tool
        from PIL import Image
        from qwen3vl import MediaPolicy

        Image.new("RGB", (96, 96), "red").save("red.png")
        store = InMemoryVectorStore(Qwen3VLEmbeddings(model="tiny", policy=MediaPolicy(folders=["."])))
        add_documents(store, [Document("", metadata={"image": "red.png"})])
        tool = create_retriever_tool(store.as_retriever(), "colours", "Finds images of colours.")
        print(tool.invoke("red"))
        ```
    """

    def to_text(document: Document) -> str:
        description = describe_document(document, media_keys)
        if document_prompt is None:
            return description
        return format_document(document.model_copy(update={"page_content": description}), document_prompt)

    def to_result(documents: Iterable[Document]) -> Any:
        found = list(documents)
        content = document_separator.join(map(to_text, found))
        return (content, found) if response_format == "content_and_artifact" else content

    def search(query: str, callbacks: Callbacks = None) -> Any:
        return to_result(retriever.invoke(query, {"callbacks": callbacks}))

    async def asearch(query: str, callbacks: Callbacks = None) -> Any:
        return to_result(await retriever.ainvoke(query, {"callbacks": callbacks}))

    return StructuredTool(
        name=name,
        description=description,
        func=search,
        coroutine=asearch,
        args_schema=RetrieverInput,
        response_format=response_format,
    )


def describe_document(document: Document, media_keys: MediaKeys = DEFAULT_KEYS) -> str:
    """Describe a document for a language model: its text, and where its image or video comes from.

    Args:
        document: A LangChain document.
        media_keys: Metadata keys of media references.

    Returns:
        The text, and a line such as `[image: slides.pdf, page 2]` for each of image and video. Encoded images are not
        part of it.

    Example:
        ```python
        from langchain_core.documents import Document
        from langchain_qwen3_vl import describe_document

        print(describe_document(Document("", metadata={"image": "slides.pdf#page=2"})))
        ```
    """
    try:
        core_document = from_langchain(document, media_keys)
    except InputError as error:
        return "\n".join(filter(None, [document.page_content, f"[media that cannot be read: {error}]"]))
    lines = [core_document.text] if core_document.text else []
    for kind, reference in (("image", core_document.image), ("video", core_document.video)):
        if reference is not None:
            lines.append(f"[{kind}: {_describe_location(core_document.source, core_document.locator, reference)}]")
    return "\n".join(lines)


def _describe_location(source: str, locator: str, reference: str) -> str:
    """Return the source of a media reference and the part of it that it names, such as "slides.pdf, page 2"."""
    if reference.startswith("data:"):
        name, fragment = source or "stored in the document itself, without a source", ""
    else:
        name, _, fragment = reference.rpartition("#")
        if not fragment.startswith(("page=", "t=")):
            name, fragment = reference, ""
    location = locator or fragment
    key, _, value = location.partition("=")
    if key == "page":
        location = f"page {value}"
    elif key == "t":
        start, _, end = value.partition(",")
        location = f"seconds {start or 0} to {end}" if end else f"from second {start}"
    name = shorten(source or name, _MAX_NAME)
    return f"{name}, {location}" if location else name

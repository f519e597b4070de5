"""LlamaIndex's SimpleDirectoryReader, with and without readers for media."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.schema import ImageDocument
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.readers.qwen3_vl import Qwen3VLReader

from qwen3vl import BatchError
from tests.support.llama_index_helpers import best_source
from tests.support.sample_library import SLIDE

HAS_FILE_READERS = importlib.util.find_spec("llama_index.readers.file") is not None
"""Whether the distribution llama-index-readers-file is installed."""


def test_our_reader_as_its_file_extractor_loads_images_pages_videos_and_texts(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    files = [str(library_folder / name) for name in ("star.png", "slides.pdf", "mover.mp4", "notes.md")]
    reader = Qwen3VLReader()
    extractors: dict[str, Any] = dict.fromkeys((".png", ".pdf", ".mp4", ".md"), reader)
    nodes = SimpleDirectoryReader(input_files=files, file_extractor=extractors).load_data()
    assert [node.metadata["kind"] for node in nodes] == ["picture", "page", "page", "clip", "text", "text"]
    assert nodes[0].metadata["file_type"] == "image/png"  # its own metadata are there, too
    retriever = VectorStoreIndex(embed_model(nodes), embed_model=embed_model).as_retriever(similarity_top_k=1)
    for name in ("star.png", "mover.mp4"):
        key = "video" if name.endswith("mp4") else "image"
        query = embed_model.query_bundle({key: str(library_folder / name)})
        assert best_source(retriever.retrieve(query)) == name
    assert best_source(retriever.retrieve(SLIDE.caption())) == "slides.pdf"


@pytest.mark.skipif(HAS_FILE_READERS, reason="llama-index-readers-file reads images as images")
def test_image_that_it_reads_as_text_is_an_error_that_names_the_package(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    documents = SimpleDirectoryReader(input_files=[str(library_folder / "star.png")]).load_data()
    with pytest.raises(BatchError, match=r"binary file \(image/png\).*Qwen3VLReader.*install llama-index-readers-file"):
        embed_model(documents)
    with pytest.raises(BatchError, match="binary file"):
        VectorStoreIndex(documents, embed_model=embed_model)


@pytest.mark.skipif(not HAS_FILE_READERS, reason="needs llama-index-readers-file")
def test_image_that_it_reads_with_its_package_is_embedded_as_an_image(
    embed_model: Qwen3VLEmbedding, library_folder: Path
) -> None:
    (document,) = SimpleDirectoryReader(input_files=[str(library_folder / "star.png")]).load_data()
    assert isinstance(document, ImageDocument)
    (node,) = embed_model([document])
    assert node.embedding == embed_model.get_image_embedding(str(library_folder / "star.png"))

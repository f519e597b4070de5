"""Loading, conversion of documents, and content blocks for chat models."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_qwen3_vl import Qwen3VLLoader, content_blocks, from_langchain, to_langchain
from PIL import Image

from qwen3vl import Document as CoreDocument
from qwen3vl import InputError, Loader, MediaPolicy


def test_loader_yields_the_documents_of_the_core(library_folder: Path) -> None:
    documents = Qwen3VLLoader(library_folder).load()
    core_documents = [document for document in Loader().load(library_folder) if isinstance(document, CoreDocument)]
    assert [from_langchain(document) for document in documents] == core_documents
    assert [to_langchain(from_langchain(document)) for document in documents] == documents


def test_loader_argument_replaces_the_default_loader(library_folder: Path) -> None:
    pages = Qwen3VLLoader([library_folder / "slides.pdf"], loader=Loader(fuse_page_text=True)).load()
    assert [from_langchain(page).fused for page in pages] == [True, True]


def test_unloadable_file_is_a_failure_or_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-nothing")
    loader = Qwen3VLLoader(tmp_path)
    assert loader.load() == []
    assert [Path(failure.source).name for failure in loader.failures] == ["broken.pdf"]
    assert "broken.pdf" in caplog.text
    with pytest.raises(InputError, match=r"broken\.pdf"):
        Qwen3VLLoader(str(tmp_path), on_error="raise").load()
    with pytest.raises(ValueError, match="on_error"):
        Qwen3VLLoader(tmp_path, on_error="skip")  # type: ignore[arg-type]


def test_former_metadata_keys_are_read() -> None:
    metadata = {"source": "report.pdf", "place": "page=3", "content": "abc", "image": "report.pdf#page=3"}
    document = from_langchain(Document("", metadata={**metadata, "by": "Ann"}))
    assert (document.locator, document.content_hash, document.page) == ("page=3", "abc", 3)
    assert document.metadata == {"by": "Ann"}
    present = {"source": "report.pdf", "locator": "page=3", "content_hash": "abc", "image": "report.pdf#page=3"}
    assert from_langchain(Document("", metadata={**present, "by": "Ann"})) == document


def test_content_blocks_leave_out_media_that_cannot_be_read(
    policy: MediaPolicy, caplog: pytest.LogCaptureFixture, library_folder: Path
) -> None:
    document = Document("its caption", metadata={"image": str(library_folder / "gone.png")})
    assert content_blocks([document], policy=policy) == [{"type": "text", "text": "its caption"}]
    assert "gone.png" in caplog.text


def test_content_blocks_show_videos_no_larger_than_side(policy: MediaPolicy, library_folder: Path) -> None:
    document = Document("", metadata={"video": str(library_folder / "mover.mp4")})
    (block,) = content_blocks([document], policy=policy, side=100)
    assert (block["type"], block["mime_type"]) == ("image", "image/jpeg")
    # The 2 x 2 frames are 50 pixels wide, with 2 pixels between them.
    assert max(Image.open(BytesIO(base64.b64decode(block["base64"]))).size) <= 102


def test_content_blocks_of_a_document_whose_reference_is_no_str_are_its_text(
    policy: MediaPolicy, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Document("its caption", metadata={"image": 3, "source": "broken.json"})
    blocks = content_blocks([broken, Document("another")], policy=policy)
    assert blocks == [{"type": "text", "text": "its caption"}, {"type": "text", "text": "another"}]
    assert "broken.json: its metadata 'image' is of type int" in caplog.text

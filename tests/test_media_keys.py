"""Media references in other frameworks' metadata: those that are not read are reported once."""

from __future__ import annotations

from pathlib import Path

import pytest
from langchain_core.documents import Document as LangChainDocument
from langchain_qwen3_vl import from_langchain
from llama_index.core.schema import TextNode
from llama_index.embeddings.qwen3_vl import document_of_node

from qwen3vl.adapters.media_keys import MediaKeys, document_from_metadata


@pytest.mark.parametrize(
    ("key", "value", "setting"),
    [
        ("image_path", "photos/a.png", "MediaKeys(image=('image', 'image_path'))"),
        ("Photo", Path("a.JPG"), "MediaKeys(image=('image', 'Photo'))"),
        ("picture", "data:image/png;base64,AAAA", "MediaKeys(image=('image', 'picture'))"),
        ("image_url", "https://example.com/a.webp?size=2", "MediaKeys(image=('image', 'image_url'))"),
        ("media_file", "talk.mp4#t=3,9", "MediaKeys(video=('video', 'media_file'))"),
    ],
)
def test_metadata_that_look_like_media_references_are_reported_once(
    key: str, value: object, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        assert document_from_metadata("a caption", {key: value}).input == {"text": "a caption"}
    (message,) = caplog.messages
    assert repr(key) in message
    assert "is ignored" in message
    assert setting in message


def test_both_frameworks_report_them(caplog: pytest.LogCaptureFixture) -> None:
    from_langchain(LangChainDocument("a caption", metadata={"langchain_image": "a.png"}))
    document_of_node(TextNode(text="a caption", metadata={"llama_image": "a.png"}))
    assert [("langchain_image" in message, "llama_image" in message) for message in caplog.messages] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize(
    "metadata",
    [
        {"image": "a.png", "image_source": "b.png"},  # there is an image
        {"image_caption": "a red circle"},
        {"image_count": 3},
        {"image_license": "licence.pdf"},
        {"image_host": "http://[broken"},
        {"source": "a.png"},  # where a text comes from
    ],
)
def test_other_metadata_are_not_reported(metadata: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    document_from_metadata("a caption", metadata)
    assert caplog.messages == []


def test_setting_of_the_message_reads_them(caplog: pytest.LogCaptureFixture) -> None:
    keys = MediaKeys(image=("image", "image_path"))
    assert document_from_metadata("", {"image_path": "a.png"}, keys).image == "a.png"
    assert caplog.messages == []


def test_fields_that_are_none_are_empty() -> None:
    """Not the text "None": all documents without a source would have the same one."""
    document = document_from_metadata("a", {"source": None, "locator": None, "content_hash": None, "by": None})
    assert (document.source, document.locator, document.content_hash) == ("", "", "")
    assert document_from_metadata("a", {"source": 0, "locator": 3}).locator == "3"
    assert document_from_metadata("a", {"source": 0}).source == "0"
    assert document.metadata == {"by": None}

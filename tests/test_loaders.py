"""Files of every kind become documents; what cannot be loaded is named."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen3vl.demo.library import write_clip, write_slides
from qwen3vl.demo.scenes import random_clip, random_scene
from qwen3vl.documents import Document, LoadFailure
from qwen3vl.inputs import as_image
from qwen3vl.loaders import Loader, Skipped
from qwen3vl.loaders.text import passages
from qwen3vl.media.images import read_image_header
from qwen3vl.media.policy import MediaPolicy


@pytest.fixture
def library(tmp_path: Path) -> Path:
    random = Random(3)
    folder = tmp_path / "library"
    (folder / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(folder / "a.png")
    Image.new("RGB", (64, 48), "blue").save(folder / "deep" / "b.JPG", "JPEG")
    write_slides(folder / "deep" / "slides.pdf", [random_scene(random) for _ in range(3)], random)
    write_clip(folder / "deep" / "er" / "clip.mp4", random_clip(random), random)
    (folder / "notes.md").write_text("# One\n\nfirst\n\n## Two\n\nsecond\n\nthird\n", encoding="utf-8")
    (folder / "data.xyz").write_bytes(b"?")
    (folder / "data2.xyz").write_bytes(b"?")
    (folder / "LICENSE").write_text("words")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / ".git" / "c.png").write_bytes(b"")
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    (folder / "latin.txt").write_bytes("Grüße".encode("latin-1"))
    (folder / "empty.mp4").write_bytes(b"")
    return folder


def test_a_mixed_folder(library: Path) -> None:
    loaded = list(Loader().load([library]))
    documents = [each for each in loaded if isinstance(each, Document)]
    assert [(Path(each.source).name, each.kind, each.locator) for each in documents] == [
        ("a.png", "picture", ""),
        ("notes.md", "text", "lines=1,3"),
        ("notes.md", "text", "lines=5,9"),
        ("b.JPG", "picture", ""),
        ("slides.pdf", "page", "page=1"),
        ("slides.pdf", "page", "page=2"),
        ("slides.pdf", "page", "page=3"),
        ("clip.mp4", "clip", "t=0,4"),
    ]
    failures = {Path(each.source).name: each.reason for each in loaded if isinstance(each, LoadFailure)}
    assert sorted(failures) == ["broken.pdf", "empty.mp4", "latin.txt"]
    assert "not UTF-8" in failures["latin.txt"]
    assert sorted(each.suffix for each in loaded if isinstance(each, Skipped)) == [".xyz", ".xyz", "no suffix"]


def test_pages_have_picture_and_text(library: Path) -> None:
    pages = [each for each in Loader().load([library / "deep" / "slides.pdf"]) if isinstance(each, Document)]
    random = Random(3)
    scenes = [random_scene(random) for _ in range(3)]
    assert [page.text for page in pages] == [scene.caption() for scene in scenes]
    assert pages[1].metadata == {"page": 2, "pages": 3}
    assert pages[1].input == {"image": pages[1].image}
    picture = read_image_header(as_image(pages[1].image), MediaPolicy()).load()
    assert picture.size == (1684, 1684)
    fused = list(Loader(fuse_page_text=True).load([library / "deep" / "slides.pdf"]))
    assert isinstance(fused[0], Document)
    assert fused[0].input == {"image": pages[0].image, "text": pages[0].text}


def test_a_page_that_is_not_there(library: Path) -> None:
    with pytest.raises(Exception, match="there is no page 9: the PDF has 3"):
        read_image_header(as_image(f"{library / 'deep' / 'slides.pdf'}#page=9"), MediaPolicy())


def test_clips_are_cut_into_equal_parts(library: Path) -> None:
    loader = Loader(segment_seconds=1.4)
    parts = [each for each in loader.load([library / "deep" / "er"]) if isinstance(each, Document)]
    assert [part.locator for part in parts] == ["t=0,1.33", "t=1.33,2.67", "t=2.67,4"]
    assert parts[1].video is not None
    assert parts[1].video.endswith("clip.mp4#t=1.33,2.67")
    assert len({part.id for part in parts}) == 3


def test_globs_files_and_doubles(library: Path) -> None:
    loaded = list(Loader().load([f"{library}/**/*.JPG", library / "a.png", library / "a.png", library / "no.png"]))
    assert [Path(each.source).name for each in loaded] == ["b.JPG", "a.png", "no.png"]
    assert isinstance(loaded[2], LoadFailure)
    assert "no such file" in loaded[2].reason


def test_ids_follow_content_and_place(library: Path) -> None:
    (first,) = Loader().load([library / "a.png"])
    (again,) = Loader().load([library / "a.png"])
    Image.new("RGB", (64, 48), "green").save(library / "a.png")
    (changed,) = Loader().load([library / "a.png"])
    assert isinstance(first, Document)
    assert isinstance(again, Document)
    assert isinstance(changed, Document)
    assert first.id == again.id != changed.id


def test_payload_round_trip(library: Path) -> None:
    for each in Loader().load([library]):
        if isinstance(each, Document):
            assert Document.from_payload(each.to_payload()) == each


def test_excluded_folder(library: Path) -> None:
    loaded = list(Loader(exclude=(library / "deep",)).load([library]))
    assert not any("deep" in each.source for each in loaded)


def test_nothing_is_read_ahead(library: Path) -> None:
    """The first document comes before the last file is looked at."""
    stream = Loader().load([library])
    next(stream)
    (library / "notes.md").unlink()
    rest = list(stream)
    assert any(isinstance(each, LoadFailure) and each.source.endswith("notes.md") for each in rest)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab .\n#`", max_size=400), st.integers(5, 60), st.booleans())
def test_passages_lose_no_word_and_fit(content: str, most: int, markdown: bool) -> None:
    made = list(passages(content, most, markdown=markdown))
    assert "".join("".join(each.text.split()) for each in made) == "".join(content.split())
    assert all(len(each.text) <= most for each in made if "\n" not in each.text)
    assert all(1 <= each.first <= each.last for each in made)


def test_passages_follow_headings() -> None:
    made = list(passages("# A\n## B\n\none\n\ntwo\n## C\nthree\n```\n# no heading\n```\n", 100, markdown=True))
    assert [(each.heading, each.text) for each in made] == [
        ("B", "# A\n\n## B\n\none\n\ntwo"),
        ("C", "## C\n\nthree\n```\n# no heading\n```"),
    ]

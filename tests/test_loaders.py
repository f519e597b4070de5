"""Files of every kind become documents; files that cannot be loaded are named."""

from __future__ import annotations

import math
import tracemalloc
from itertools import islice
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qwen3vl.demo.library import write_clip, write_slides
from qwen3vl.demo.scenes import random_clip, random_scene
from qwen3vl.documents import Document, LoadFailure
from qwen3vl.errors import MediaError
from qwen3vl.inputs import as_image
from qwen3vl.loaders import Loader, Skipped
from qwen3vl.loaders.passages import split_passages
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


def load_documents(loader: Loader, path: Path) -> list[Document]:
    """Return the documents among what is loaded."""
    return [loaded for loaded in loader.load(path) if isinstance(loaded, Document)]


def test_folder_yields_documents_failures_and_skipped_files(library: Path) -> None:
    results = list(Loader().load([library]))
    documents = [loaded for loaded in results if isinstance(loaded, Document)]
    assert [(Path(document.source).name, document.kind, document.locator) for document in documents] == [
        ("a.png", "picture", ""),
        ("notes.md", "text", "lines=1,3"),
        ("notes.md", "text", "lines=5,9"),
        ("b.JPG", "picture", ""),
        ("slides.pdf", "page", "page=1"),
        ("slides.pdf", "page", "page=2"),
        ("slides.pdf", "page", "page=3"),
        ("clip.mp4", "clip", "t=0,4"),
    ]
    failures = {Path(loaded.source).name: loaded.reason for loaded in results if isinstance(loaded, LoadFailure)}
    assert sorted(failures) == ["broken.pdf", "empty.mp4", "latin.txt"]
    assert "not UTF-8" in failures["latin.txt"]
    assert "cannot be opened" in failures["broken.pdf"]
    assert "is empty" in failures["empty.mp4"]
    skipped = [loaded.suffix for loaded in results if isinstance(loaded, Skipped)]
    assert sorted(skipped) == [".xyz", ".xyz", "no suffix"]


def test_pdf_pages_have_image_and_text(library: Path) -> None:
    slides = library / "deep" / "slides.pdf"
    pages = load_documents(Loader(), slides)
    random = Random(3)
    assert [page.text for page in pages] == [random_scene(random).caption() for _ in range(3)]
    assert pages[1].metadata == {"page": 2, "pages": 3}
    assert pages[1].input == {"image": pages[1].image}
    image = read_image_header(as_image(pages[1].image), MediaPolicy()).load(None)
    assert image.shape == (1684, 1684, 3)
    fused = load_documents(Loader(fuse_page_text=True), slides)
    assert fused[0].input == {"image": pages[0].image, "text": pages[0].text}


def test_no_file_above_the_limit_of_the_policy_is_read(library: Path) -> None:
    """Texts included, which are read whole."""
    results = list(Loader(policy=MediaPolicy(max_bytes=10)).load([library / "notes.md", library / "a.png"]))
    assert [isinstance(loaded, LoadFailure) and "MediaPolicy.max_bytes" in loaded.reason for loaded in results] == [
        True,
        True,
    ]


def test_missing_pdf_page_is_an_error(library: Path) -> None:
    with pytest.raises(MediaError, match="there is no page 9: the PDF has 3"):
        read_image_header(as_image(f"{library / 'deep' / 'slides.pdf'}#page=9"), MediaPolicy())


def test_video_is_cut_into_equal_segments(library: Path) -> None:
    segments = load_documents(Loader(segment_seconds=1.4), library / "deep" / "er")
    assert [segment.locator for segment in segments] == ["t=0,1.33", "t=1.33,2.67", "t=2.67,4"]
    assert segments[1].video is not None
    assert segments[1].video.endswith("clip.mp4#t=1.33,2.67")
    assert len({segment.id for segment in segments}) == 3


def test_globs_and_files_are_loaded_once_and_missing_files_are_failures(library: Path) -> None:
    paths: list[str | Path] = [f"{library}/**/*.JPG", library / "a.png", library / "a.png", library / "no.png"]
    results = list(Loader().load(paths))
    assert [Path(loaded.source).name for loaded in results] == ["b.JPG", "a.png", "no.png"]
    assert isinstance(results[2], LoadFailure)
    assert "no such file" in results[2].reason


def test_id_changes_with_the_content_of_a_file(library: Path) -> None:
    path = library / "a.png"
    (first,), (again,) = load_documents(Loader(), path), load_documents(Loader(), path)
    Image.new("RGB", (64, 48), "green").save(path)
    (changed,) = load_documents(Loader(), path)
    assert first.id == again.id != changed.id


def test_documents_survive_a_payload_round_trip(library: Path) -> None:
    documents = load_documents(Loader(), library)
    assert [Document.from_payload(document.to_payload()) for document in documents] == documents


def test_excluded_folder_is_not_entered(library: Path) -> None:
    results = list(Loader(exclude=(library / "deep",)).load([library]))
    assert not any("deep" in loaded.source for loaded in results)


@pytest.mark.parametrize("pattern", ["**/*", "**", "*/*", "d*/**/*.mp4", "deep/er/*", "*/../deep/er/*.mp4"])
def test_patterns_match_nothing_in_an_excluded_folder(library: Path, pattern: str) -> None:
    """Also if the folder is reached through a link."""
    (library / "link").symlink_to(library / "deep")
    without = list(Loader().find(library / pattern))
    assert any("deep" in str(found) for found in without)
    found = list(Loader(exclude=(library / "deep",)).find(library / pattern))
    expected = [item for item in without if "deep" not in str(item)]
    assert not any(isinstance(item, LoadFailure) for item in without)  # such as data.xyz, which d* matches
    assert [item for item in found if not isinstance(item, LoadFailure)] == expected
    (clip,) = Loader(exclude=(library / "deep",)).find(library / "deep/er/clip.mp4")  # it is named itself
    assert isinstance(clip, Path)


@pytest.mark.parametrize("seconds", [0, -1.5, math.nan])
def test_segments_without_a_duration_are_a_value_error(seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"segment_seconds is {seconds}; it must be a positive number of seconds"):
        Loader(segment_seconds=seconds)


def test_files_are_read_one_at_a_time(library: Path) -> None:
    """The first document is yielded before the last file is read."""
    results = Loader().load([library])
    next(results)
    (library / "notes.md").unlink()
    failures = [loaded.source for loaded in results if isinstance(loaded, LoadFailure)]
    assert str(library / "notes.md") in failures


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab .\n#`", max_size=400), st.integers(5, 60), st.booleans())
def test_passages_keep_every_word_and_the_limit(content: str, max_chars: int, markdown: bool) -> None:
    passages = list(split_passages(content, max_chars, markdown=markdown))
    words = "".join("".join(passage.text.split()) for passage in passages)
    assert words == "".join(content.split())
    assert all(len(passage.text) <= max_chars for passage in passages)
    assert all(1 <= passage.first_line <= passage.last_line for passage in passages)


def test_lines_are_numbered_as_editors_do() -> None:
    """RFCs have a form feed between pages, and texts of other programs U+2028 or U+0085 within lines."""
    content = "one\n\n\fRFC 9110\n\ntwo\u2028three\x85four\v\n\nlast\n"
    passages = [(passage.text, passage.first_line, passage.last_line) for passage in split_passages(content, 16)]
    assert passages == [("one\n\nRFC 9110", 1, 3), ("two\u2028three\x85four", 5, 5), ("last", 7, 7)]
    (code,) = split_passages("```\n# no heading\n\n", 100, markdown=True)
    assert (code.first_line, code.last_line) == (1, 3)


def test_markdown_headings_begin_passages() -> None:
    content = "# A\n## B\n\none\n\ntwo\n## C\nthree\n```\n# no heading\n```\n"
    passages = [(passage.heading, passage.text) for passage in split_passages(content, 100, markdown=True)]
    assert passages == [
        ("B", "# A\n\n## B\n\none\n\ntwo"),
        ("C", "## C\n\nthree\n```\n# no heading\n```"),
    ]


@pytest.mark.parametrize(
    "before",
    [
        "```text``` within a line is no block of code",
        "````\n```\n# no heading\n```\n````",
        "~~~\n```\n# no heading\n~~~",
        "```\n# no heading\n``` no end\n```",
    ],
)
def test_only_its_own_fence_ends_a_block_of_code(before: str) -> None:
    """CommonMark 0.31, section 4.5."""
    passages = list(split_passages(f"{before}\n\n# Title\n\ntext\n", 200, markdown=True))
    assert [passage.heading for passage in passages] == ["", "Title"]
    assert [passage.text for passage in passages] == [before, "# Title\n\ntext"]


def test_sections_of_one_title_are_passages_of_their_own() -> None:
    passages = list(split_passages("## Note\n\none\n\n## Note\n\ntwo\n", 100, markdown=True))
    assert [(passage.text, passage.first_line) for passage in passages] == [
        ("## Note\n\none", 1),
        ("## Note\n\ntwo", 5),
    ]


def test_passages_without_characters_are_refused() -> None:
    with pytest.raises(ValueError, match="passage_chars is 0; it must be at least 1"):
        list(Loader(passage_chars=0).load([]))


def test_files_that_were_found_take_little_memory(tmp_path: Path) -> None:
    for number in range(2000):
        folder = tmp_path / f"folder-{number % 20:02d}"
        folder.mkdir(exist_ok=True)
        (folder / f"photo-{number:05d}.jpg").touch()
    tracemalloc.start()
    try:
        found = Loader().find([tmp_path])
        assert len(list(islice(found, 1900))) == 1900
        num_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert num_bytes < 1900 * 200

"""A bad item is an error with its index, source and reason; the other items are not affected."""

from __future__ import annotations

import base64
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from qwen3vl import BatchError, Embedder, IngestError, InputError, ItemError, MediaError, Report, Reranker
from qwen3vl.inputs import Item
from tests.support.engines import embedder_with
from tests.support.hostile.png import png


def test_bad_items_leave_the_other_vectors_unchanged(
    golden_embedder: Embedder, media: dict[str, Path], tmp_path: Path
) -> None:
    good: list[Any] = [f"passage number {number}" for number in range(6)]
    good += [{"image": str(media[name])} for name in ("photo", "odd", "grey", "palette")]
    good += [{"image": str(media["square"]), "text": "a caption"}, {"video": [str(media["frame-00"])] * 4}]
    good += ["the last one"]
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(media["photo-jpeg"].read_bytes()[:900])
    bad = {2: {"image": truncated}, 7: {"image": str(tmp_path / "gone.png")}, 11: {"text": ""}}
    inputs = list(good)
    for index, value in sorted(bad.items()):
        inputs.insert(index, value)
    assert len(inputs) == 16
    expected = golden_embedder.embed(good)
    with pytest.raises(BatchError) as caught:
        golden_embedder.embed(inputs)
    first, second, third = caught.value.errors
    assert (first.index, first.source) == (2, str(truncated))
    assert "broken" in first.reason
    assert (second.index, second.source) == (7, str(tmp_path / "gone.png"))
    assert "does not exist" in second.reason
    assert third.index == 11
    assert "empty" in third.reason
    results_of_good = np.delete(caught.value.results, list(bad), axis=0)
    np.testing.assert_allclose(results_of_good, expected, atol=2e-6)
    assert np.isnan(caught.value.results[list(bad)]).all()
    collected = golden_embedder.embed(inputs, on_error="collect")
    assert collected.ok.tolist() == [index not in bad for index in range(16)]
    np.testing.assert_array_equal(collected.values, caught.value.results)


INVALID_INPUTS = [
    ({}, "it is empty"),
    ("", "it is empty"),
    ({"text": []}, "it is empty"),
    ({"text": ["", ""]}, "it is empty"),
    ({"txt": "a"}, "unknown key 'txt'"),
    (17, "this is int"),
    (None, "this is NoneType"),
    ({"text": 5}, "'text' must be a str"),
    ({"image": 5}, "an image is a path"),
    ({"image": ""}, "empty string"),
    ({"image": "s3://bucket/key.png"}, "URLs of this kind are not opened"),
    ({"image": "data:image/png;base64,@@@"}, "does not hold valid data"),
    ({"image": "data:image/png"}, "no comma"),
    ({"image": b"not an image"}, "not an image that can be read"),
    ({"image": np.zeros((4, 4, 3), dtype=np.float32)}, "dtype uint8"),
    ({"image": np.zeros((0, 4, 3), dtype=np.uint8)}, "has no pixels"),
    ({"image": Image.new("RGB", (2010, 10))}, "201 times"),
    ({"image": png(60_000, 60_000)}, "too large to be opened safely"),
    ({"video": b"not a video"}, "not a video that can be read"),
    ({"video": []}, "it is empty"),
    ({"video": [[]]}, "empty list of frames"),
    ({"video": [Image.new("RGB", (64, 64)), Image.new("RGB", (640, 64))]}, "different sizes"),
    ({"text": "a", "fps": 0}, "'fps' must be"),
    ({"text": "a", "fps": 10**400}, "'fps' must be"),
    ({"text": "a", "max_frames": 1}, "'max_frames' must be"),
    ({"text": "a", "instruction": 3}, "'instruction' must be"),
    ("half \ud83d", r"the text has a lone surrogate at character 5, U\+D83D.*half of a character.*'replace'"),
    ({"text": ["a", "caf\udce9"]}, r"at character 3, U\+DCE9.*the byte 0xE9, which is not UTF-8"),
    ({"text": "a", "instruction": "\ude00"}, r"the instruction has a lone surrogate at character 0, U\+DE00"),
    (Item(texts=("\udfff",)), r"the text has a lone surrogate at character 0, U\+DFFF"),
]


@pytest.mark.parametrize(("value", "reason"), INVALID_INPUTS, ids=range(len(INVALID_INPUTS)))
def test_invalid_input_is_an_item_error_with_its_reason(value: Any, reason: str, golden_embedder: Embedder) -> None:
    batch = golden_embedder.embed(["before", value, "after"], on_error="collect")
    assert batch.ok.tolist() == [True, False, True]
    (error,) = batch.errors
    assert error.index == 1
    assert re.search(reason, error.reason), error.reason


def test_equal_images_of_every_type_have_equal_vectors(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    data = media["odd"].read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    escaped = f"data:image/png,{quote(data)}"
    image = Image.open(media["odd"])
    values: list[Any] = [str(media["odd"]), media["odd"], media["odd"].as_uri(), uri, escaped, data, BytesIO(data)]
    values += [image, np.asarray(image)]
    vectors = golden_embedder.embed([{"image": value} for value in values] + [media["odd"], image, data])
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], len(vectors), axis=0), atol=2e-6)


def test_error_of_a_query_says_so(golden_reranker: Reranker) -> None:
    with pytest.raises(InputError, match="the query"):
        golden_reranker.score({"image": "/nowhere/at/all.png"}, ["a"])


@pytest.mark.parametrize("role", ["embedder", "reranker", "embed", "stream", "score"])
def test_instruction_with_a_lone_surrogate_is_an_error_of_the_call(
    role: str, golden_embedder: Embedder, golden_reranker: Reranker
) -> None:
    instruction = "find \ud83d"
    calls: dict[str, Callable[[], Any]] = {
        "embedder": lambda: Embedder("tiny", instruction=instruction),
        "reranker": lambda: Reranker("tiny", instruction=instruction),
        "embed": lambda: golden_embedder.embed("a", instruction=instruction, on_error="collect"),
        "stream": lambda: list(golden_embedder.stream(["a"], instruction=instruction)),
        "score": lambda: golden_reranker.score("a", ["b"], instruction=instruction, on_error="collect"),
    }
    with pytest.raises(InputError, match=r"the instruction has a lone surrogate at character 5, U\+D83D"):
        calls[role]()


def test_query_and_document_with_a_lone_surrogate_are_named(golden_reranker: Reranker) -> None:
    with pytest.raises(InputError, match=r"the query .*lone surrogate at character 1"):
        golden_reranker.score("a\ud83d", ["b"])
    (error,) = golden_reranker.score("a", ["b", "c\ud83d"], on_error="collect").errors
    assert (error.index, "lone surrogate at character 1" in error.reason) == (1, True)


def test_failed_documents_are_ranked_last(golden_reranker: Reranker, media: dict[str, Path]) -> None:
    documents: list[Any] = ["sand", {"image": "/nowhere.png"}, {"image": media["photo"]}]
    batch = golden_reranker.score("beach", documents, on_error="collect")
    assert batch.ok.tolist() == [True, False, True]
    ranked = golden_reranker.rank("beach", documents, on_error="collect")
    assert [document.index for document in ranked][-1] == 1
    assert ranked[-1].score is None
    assert str(ranked[-1].error) == str(batch.errors[0])
    assert [index for index, _ in ranked[:2]] == sorted((0, 2), key=lambda index: -batch.values[index])
    with pytest.raises(BatchError):
        golden_reranker.rank("beach", documents)


def test_embedder_is_thread_safe(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    inputs: list[Any] = ["one", {"image": media["odd"]}, "a longer text than the others", {"image": media["tiny"]}]
    expected = golden_embedder.embed(inputs)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: golden_embedder.embed(inputs), range(8)))
    assert len(results) == 8
    for vectors in results:
        np.testing.assert_allclose(vectors, expected, atol=2e-6)


class BytesPath:
    """A path-like object whose path is bytes."""

    def __fspath__(self) -> bytes:
        return b"x.png"


@pytest.mark.parametrize(
    "value", [{"video": ["http://[bad"]}, {"image": "file://[bad"}, BytesPath(), {"image": "~backup.png"}]
)
def test_malformed_references_are_item_errors(value: Any, golden_embedder: Embedder) -> None:
    batch = golden_embedder.embed(["before", value, "after"], on_error="collect")
    assert batch.ok.tolist() == [True, False, True]


def test_single_input_counts_as_a_list_of_one(golden_embedder: Embedder, media: dict[str, Path]) -> None:
    pixels = np.asarray(Image.open(media["odd"]))
    for single in (
        "text",
        {"text": "a"},
        pixels,
        BytesIO(media["odd"].read_bytes()),
        Image.open(media["odd"]),
        media["odd"],
    ):
        assert golden_embedder.embed(single).shape == (1, 96)
    assert golden_embedder.embed([]).shape == (0, 96)
    assert golden_embedder.embed(str(number) for number in range(3)).shape == (3, 96)


def test_images_are_copied_when_they_are_passed(
    golden_embedder: Embedder, golden_reranker: Reranker, media: dict[str, Path]
) -> None:
    """One object that Pillow has not decoded yet, in many prompts; and a buffer that the caller writes into again."""
    lazy = Image.open(media["photo-jpeg"])
    texts = [f"document number {number} " * (1 + number % 9) for number in range(40)]
    expected = golden_reranker.score({"image": media["photo-jpeg"]}, texts)
    np.testing.assert_allclose(golden_reranker.score({"image": lazy}, texts), expected, atol=1e-5)
    buffer = np.zeros((64, 64), dtype=np.uint8)

    def reused_buffer() -> Any:
        for value in (0, 90, 250):
            buffer[:] = value
            yield {"image": buffer}

    vectors = golden_embedder.embed(reused_buffer())
    assert float(vectors[0] @ vectors[1]) < 0.9999
    assert float(vectors[0] @ vectors[2]) < 0.9999


def test_exif_rotates_images_of_every_type(checkpoints: Path, media: dict[str, Path]) -> None:
    image = Image.open(media["odd"])
    exif = image.getexif()
    exif[0x0112] = 6
    encoded = BytesIO()
    image.save(encoded, "PNG", exif=exif)
    embedder = Embedder(checkpoints / "embedding", device="cpu", exif=True)
    rotated = image.transpose(Image.Transpose.ROTATE_270)
    from_bytes, from_image, expected = embedder.embed([encoded.getvalue(), Image.open(encoded), rotated])
    np.testing.assert_allclose(from_bytes, expected, atol=2e-6)
    np.testing.assert_allclose(from_image, expected, atol=2e-6)


def test_out_of_memory_is_recovered_by_running_halves(checkpoints: Path, golden_embedder: Embedder) -> None:
    """The device runs out of memory at more than 60 tokens, with the message of torch's allocator for CPUs."""

    def limited_forward(replica: Any, pack: Any, *args: Any, **options: Any) -> Any:
        if pack.num_tokens > 60:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return replica.execute(pack, *args, **options)

    embedder = embedder_with(checkpoints / "embedding", stages={"forward": limited_forward})
    texts = [f"text {number} " * 8 for number in range(6)]
    np.testing.assert_allclose(embedder.embed(texts), golden_embedder.embed(texts), atol=2e-6)


def test_failed_kernel_is_an_error_of_its_batch(checkpoints: Path) -> None:
    def failing_forward(*_: Any, **__: Any) -> Any:
        raise RuntimeError("a kernel failed")

    embedder = embedder_with(checkpoints / "embedding", stages={"forward": failing_forward})
    batch = embedder.embed([f"text {number}" for number in range(6)], on_error="collect")
    assert len(batch.errors) == 6
    assert "a kernel failed" in batch.errors[0].reason


def test_many_texts_equal_their_concatenation(golden_embedder: Embedder) -> None:
    """Texts of a prompt are tokenized together, in time linear in their number."""
    texts = ["word "] * 5000
    batch = golden_embedder.embed([{"text": texts}], on_error="collect")
    assert batch.ok.all()
    np.testing.assert_allclose(
        batch.values, golden_embedder.embed("".join(texts), on_error="collect").values, atol=2e-6
    )


def test_negative_top_n_is_refused(golden_reranker: Reranker) -> None:
    with pytest.raises(ValueError, match="top_n is -1"):
        golden_reranker.rank("a", ["b"], top_n=-1)
    assert golden_reranker.rank("a", ["b"], top_n=0) == []


def test_unknown_device_is_refused(checkpoints: Path) -> None:
    with pytest.raises(ValueError, match="the device 'nonsense' cannot be used here"):
        Embedder(checkpoints / "embedding", device="nonsense")


def test_pickled_errors_keep_what_is_wrong_with_the_input() -> None:
    cause = MediaError("it is broken")
    cause.source = "photo.png"
    cause.__cause__ = OSError("not pickled")
    error = ItemError(3, "photo.png", str(cause))
    error.__cause__ = cause
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert (type(copy.__cause__), str(copy.__cause__), copy.__cause__.source) == (MediaError, str(cause), "photo.png")
    assert copy.__cause__.__cause__ is None
    error.__cause__ = OSError("may not be an error of the input")
    assert pickle.loads(pickle.dumps(error)).__cause__ is None


def test_pickled_errors_of_stores_keep_their_report() -> None:
    error = IngestError("the store is gone", Report(added=3))
    error.transient = True
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.report, copy.transient) == (IngestError, str(error), Report(added=3), True)

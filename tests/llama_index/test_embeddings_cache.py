"""`embeddings_cache`: vectors by recipe, instruction and content."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import ImageNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.embeddings.qwen3_vl.cache import CachedInputs
from PIL import Image

from qwen3vl import BatchError, ItemError, MediaPolicy
from qwen3vl.results import Batch
from tests.support.engines import assert_close


class CountingStore(SimpleKVStore):
    """A key-value store that counts the vectors written to it: those that the model computed."""

    def __init__(self) -> None:
        super().__init__()
        self.num_computed = 0

    def put(self, *args: Any, **kwargs: Any) -> None:
        self.num_computed += 1
        super().put(*args, **kwargs)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def cached_model(store: SimpleKVStore, *folders: Path, **settings: Any) -> Qwen3VLEmbedding:
    if folders:
        settings["policy"] = MediaPolicy(folders=folders)
    return Qwen3VLEmbedding(model_name="tiny", embeddings_cache=store, **settings)


async def test_vectors_differ_by_instruction_and_dimensions(store: CountingStore) -> None:
    model = cached_model(store, query_instruction="Find it.")
    document, query = model.get_text_embedding("a star"), model.get_query_embedding("a star")
    assert document != query
    assert store.num_computed == 2
    assert (model.get_text_embedding("a star"), model.get_query_embedding("a star")) == (document, query)
    assert await cached_model(store, query_instruction="Find it.").aget_query_embedding("a star") == query
    assert store.num_computed == 2
    assert cached_model(store, query_instruction="Find another.").get_query_embedding("a star") != query
    assert cached_model(store, document_instruction="Another.").get_text_embedding("a star") != document
    assert len(cached_model(store, dimensions=16).get_text_embedding("a star")) == 16
    assert store.num_computed == 5


def test_files_are_known_by_content_not_by_name(store: CountingStore, library_folder: Path, tmp_path: Path) -> None:
    model = cached_model(store, library_folder, tmp_path)
    star = (library_folder / "star.png").read_bytes()
    copy = tmp_path / "copy.png"
    copy.write_bytes(star)
    nodes = [ImageNode(image_path=str(library_folder / name)) for name in ("star.png", "0.png")]
    model(nodes)
    assert store.num_computed == 2
    (copied,) = model([ImageNode(image_path=str(copy))])
    assert copied.embedding == nodes[0].embedding != nodes[1].embedding
    assert model.get_image_embedding(BytesIO(star)) == nodes[0].embedding
    assert store.num_computed == 2
    copy.write_bytes((library_folder / "0.png").read_bytes())
    (changed,) = model([ImageNode(image_path=str(copy))])
    assert changed.embedding == nodes[1].embedding


def test_pages_parts_and_palettes_are_told_apart(store: CountingStore, library_folder: Path) -> None:
    model = cached_model(store, library_folder)
    pages = [{"image": f"{library_folder}/slides.pdf#page={page}"} for page in (1, 2)]
    assert model.get_multimodal_embedding(pages[0]) != model.get_multimodal_embedding(pages[1])
    mover = str(library_folder / "mover.mp4")
    assert model.get_video_embedding(mover) != model.get_video_embedding(f"{mover}#t=0,1")
    red, blue = (Image.new("P", (64, 64), 0) for _ in range(2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    assert model.get_multimodal_embedding({"image": red}) != model.get_multimodal_embedding({"image": blue})


def test_only_missing_inputs_are_embedded_and_errors_keep_their_index() -> None:
    store = SimpleKVStore()
    store.put("key of cached", {"embedding": [1.0]}, collection="qwen3vl")
    inputs = ["new 1", "cached", "broken", "uncacheable"]
    cached = CachedInputs(store, inputs, lambda value: None if value == "uncacheable" else f"key of {value}")
    assert cached.missing == ["new 1", "broken", "uncacheable"]
    values = np.asarray([[2.0], [np.nan], [3.0]], dtype=np.float32)
    result = cached.complete(Batch(values, (ItemError(1, "text", "broken"),)))
    assert result.vectors == [[2.0], [1.0], None, [3.0]]
    assert [(error.index, error.reason) for error in result.errors] == [(2, "broken")]
    assert store.get_all("qwen3vl").keys() == {"key of cached", "key of new 1"}


def test_cached_and_new_texts_are_returned_in_order(store: CountingStore) -> None:
    model = cached_model(store)
    cached = model.get_text_embedding("a star")
    vectors = model.get_text_embedding_batch(["new 1", "a star", "new 2", "a star"])
    assert vectors[1] == vectors[3] == cached
    assert store.num_computed == 3
    assert_close(vectors[::2], [model.get_text_embedding(text) for text in ("new 1", "new 2")])


def test_policy_applies_to_the_cache(store: CountingStore, library_folder: Path) -> None:
    model = cached_model(store, library_folder)
    with pytest.raises(BatchError, match="outside the folders"):
        model.get_image_embedding("/etc/hostname")
    assert store.num_computed == 0

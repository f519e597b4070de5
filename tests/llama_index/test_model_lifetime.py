"""Objects share a model, keep it loaded, and give copies and pickles none."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import subprocess
import sys
import threading
import weakref
from typing import Any

import pytest
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank

from qwen3vl.adapters.registry import release_models


class UnpicklableStore(SimpleKVStore):
    """A key-value store with a lock, as those of databases."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def test_serialized_settings_give_an_equal_model(embed_model: Qwen3VLEmbedding) -> None:
    vector = embed_model.get_text_embedding("a")
    settings = json.loads(json.dumps(embed_model.to_dict()))
    assert Qwen3VLEmbedding.from_dict(settings).get_text_embedding("a") == vector
    assert Qwen3VLEmbedding.from_json(embed_model.to_json()).embedder is embed_model.embedder
    assert Qwen3VLEmbedding.model_validate(embed_model.model_dump()).embedder is embed_model.embedder
    assert set(embed_model.to_payload()) == {"class_name", "model_name", "embed_batch_size", "dimensions"}
    cached = Qwen3VLEmbedding(model_name="tiny", embeddings_cache=SimpleKVStore())
    assert "embeddings_cache" not in cached.to_dict()


def test_pickle_holds_settings_and_no_model(embed_model: Qwen3VLEmbedding) -> None:
    assert embed_model.embedder is not None
    data = pickle.dumps(embed_model)
    assert len(data) < 10_000
    unpickled = pickle.loads(data)
    assert unpickled.policy == embed_model.policy
    assert unpickled.embedder is embed_model.embedder


def test_pickling_leaves_unpicklable_fields_in_the_object() -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", embeddings_cache=UnpicklableStore())
    assert pickle.loads(pickle.dumps(embed_model)).embeddings_cache is None
    assert isinstance(embed_model.embeddings_cache, UnpicklableStore)


def test_copies_share_the_model(embed_model: Qwen3VLEmbedding) -> None:
    for copied in (copy.copy(embed_model), copy.deepcopy(embed_model), embed_model.model_copy()):
        assert copied.embedder is embed_model.embedder


def test_unpickled_objects_of_a_worker_share_a_model_that_stays_loaded() -> None:
    """A pipeline's worker unpickles a new object for each task and drops it afterwards."""
    embed_model = Qwen3VLEmbedding(model_name="tiny", dimensions=20)
    code = (
        "import sys, pickle; data = sys.stdin.buffer.read()\n"
        "ids = set()\n"
        "for _ in range(3):\n"
        "    model = pickle.loads(data); model.get_text_embedding('a'); ids.add(id(model.embedder)); del model\n"
        "print(len(ids))"
    )
    worker = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(embed_model), capture_output=True, check=True
    )
    assert worker.stdout.strip() == b"1"


def test_object_keeps_its_model_loaded_while_it_lives() -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", dimensions=21)
    embed_model.get_text_embedding("a")
    embedder = weakref.ref(embed_model.embedder)
    gc.collect()
    assert embedder() is not None
    del embed_model
    gc.collect()
    assert embedder() is None


def test_changed_settings_take_effect_at_once() -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", dimensions=22)
    assert len(embed_model.get_text_embedding("a")) == 22
    embed_model.dimensions = 23
    assert len(embed_model.get_text_embedding("a")) == 23


@pytest.fixture
def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text)) for text in ("a red circle", "a blue star")]


def test_released_models_load_anew(nodes: list[NodeWithScore]) -> None:
    embed_model = Qwen3VLEmbedding(model_name="tiny", dimensions=24)
    unpickled = pickle.loads(pickle.dumps(embed_model))
    rerank = Qwen3VLRerank(model="tiny")
    vector = embed_model.get_text_embedding("a")
    reranked = rerank.postprocess_nodes(nodes, query_str="a")
    embedder, reranker = embed_model.embedder, rerank.reranker
    assert unpickled.embedder is embedder
    release_models()
    assert embedder.closed
    assert reranker.closed
    assert embed_model.get_text_embedding("a") == unpickled.get_text_embedding("a") == vector
    assert rerank.postprocess_nodes(nodes, query_str="a") == reranked
    assert embed_model.embedder is unpickled.embedder is not embedder
    assert rerank.reranker is not reranker


def test_importing_and_constructing_do_not_import_torch() -> None:
    code = (
        "import sys; from llama_index.embeddings.qwen3_vl import Qwen3VLEmbedding\n"
        "from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLRerank\n"
        "from llama_index.readers.qwen3_vl import Qwen3VLReader\n"
        "Qwen3VLEmbedding(model_name='tiny'); Qwen3VLRerank(model='tiny'); Qwen3VLReader()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_reranker_copies_and_pickles_rerank_alike(nodes: list[NodeWithScore]) -> None:
    rerank = Qwen3VLRerank(model="tiny", top_n=2)
    reranked = rerank.postprocess_nodes(nodes, query_str="a")
    settings: dict[str, Any] = json.loads(json.dumps(rerank.to_dict()))
    assert Qwen3VLRerank.from_dict(settings).postprocess_nodes(nodes, query_str="a") == reranked
    data = pickle.dumps(rerank)
    assert len(data) < 10_000
    assert pickle.loads(data).reranker is rerank.reranker

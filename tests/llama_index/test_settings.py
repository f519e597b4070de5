"""Settings of the components: equality, both names of the model, JSON schemas. mypy checks this file, too."""

from __future__ import annotations

import copy
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.schema import ImageNode, NodeWithScore, TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.qwen3_vl import MediaKeys, Qwen3VLEmbedding
from llama_index.node_parser.qwen3_vl import Qwen3VLSplitter
from llama_index.postprocessor.qwen3_vl_rerank import Qwen3VLPictures, Qwen3VLRerank
from pydantic import ValidationError

from qwen3vl import MediaPolicy

Component = Qwen3VLEmbedding | Qwen3VLRerank | Qwen3VLPictures | Qwen3VLSplitter
COMPONENTS: list[type[Component]] = [Qwen3VLEmbedding, Qwen3VLRerank, Qwen3VLPictures, Qwen3VLSplitter]
POLICY = MediaPolicy(folders=("photos",))


def make_embedding() -> Qwen3VLEmbedding:
    return Qwen3VLEmbedding(model_name="tiny", dimensions=16, policy=POLICY, model_kwargs={"max_length": 512})


def make_rerank() -> Qwen3VLRerank:
    return Qwen3VLRerank(model="tiny", top_n=2, media_keys=MediaKeys(image=("photo",)))


def make_pictures() -> Qwen3VLPictures:
    return Qwen3VLPictures(side=64, policy=POLICY)


def make_splitter() -> Qwen3VLSplitter:
    return Qwen3VLSplitter(media_keys=MediaKeys(image=("photo",)))


def use(component: Component) -> None:
    """Use a component as a pipeline or query engine does; models load."""
    text = TextNode(text="a red circle")
    if isinstance(component, Qwen3VLEmbedding):
        component.get_query_embedding("a red circle")
        component([text])
    elif isinstance(component, Qwen3VLSplitter):
        component([text])
    else:
        image = ImageNode(image_path="/etc/hostname")
        component.postprocess_nodes([NodeWithScore(node=text), NodeWithScore(node=image)], query_str="a")


# `max_length` is a setting of the model, which a server's clients cannot choose.
@pytest.mark.parametrize(
    "make", [pytest.param(make_embedding, marks=pytest.mark.engine), make_rerank, make_pictures, make_splitter]
)
def test_equal_settings_are_equal_before_and_after_use_and_through_every_copy(make: Callable[[], Component]) -> None:
    used, fresh = make(), make()
    assert used == fresh
    use(used)
    assert used == fresh
    for component in (used, fresh):
        copies = [
            pickle.loads(pickle.dumps(component)),
            copy.copy(component),
            copy.deepcopy(component),
            component.model_copy(),
            type(component).model_validate(component.model_dump()),
            type(component)(**component.model_dump()),
            type(component).from_dict(json.loads(json.dumps(component.to_dict()))),
            type(component).from_json(component.to_json()),
        ]
        for copied in copies:
            assert copied == used
            assert copied == fresh
    use(copies[0])
    assert copies[0] == fresh


def test_other_settings_and_other_classes_are_not_equal() -> None:
    different = [
        make_embedding(),
        Qwen3VLEmbedding(model_name="tiny"),
        Qwen3VLEmbedding(model_name="tiny", policy=POLICY),
        make_rerank(),
        Qwen3VLRerank(model="tiny"),
        make_pictures(),
        make_splitter(),
        "tiny",
    ]
    for index, component in enumerate(different):
        assert [other == component for other in different] == [other == index for other in range(len(different))]


def test_callbacks_and_caches_are_no_settings() -> None:
    callbacks = CallbackManager([LlamaDebugHandler(print_trace_on_end=False)])
    observed = Qwen3VLEmbedding(model_name="tiny", callback_manager=callbacks, embeddings_cache=SimpleKVStore())
    assert observed == Qwen3VLEmbedding(model_name="tiny")


def test_both_names_of_the_model_are_accepted_and_can_be_read_and_assigned() -> None:
    assert Qwen3VLEmbedding(model="tiny") == Qwen3VLEmbedding(model_name="tiny")
    assert Qwen3VLRerank(model="tiny") == Qwen3VLRerank(model_name="tiny")
    for component in (
        Qwen3VLEmbedding(model="tiny"),
        Qwen3VLEmbedding(model_name="tiny"),
        Qwen3VLRerank(model="tiny"),
        Qwen3VLRerank(model_name="tiny"),
    ):
        name: str = component.model
        assert name == component.model_name == "tiny"
        component.model = "first"
        assert component.model_name == "first"
        component.model_name = "second"
        assert component.model == "second"
    assert Qwen3VLEmbedding(model="tiny").to_payload()["model_name"] == "tiny"


def test_two_names_of_different_models_are_an_error() -> None:
    assert Qwen3VLEmbedding(model="tiny", model_name="tiny").model == "tiny"
    with pytest.raises(ValidationError, match="model_name is 'a' and model is 'b', and both name the model: pass one"):
        Qwen3VLEmbedding(model_name="a", model="b")
    with pytest.raises(ValidationError, match="model is 'a' and model_name is 'b', and both name the model: pass one"):
        Qwen3VLRerank(model="a", model_name="b")


@pytest.mark.parametrize("component", COMPONENTS)
def test_json_schema_describes_every_field_of_ours(component: type[Component]) -> None:
    schema = component.model_json_schema()
    own_fields = set(component.model_fields) - {"callback_manager"}  # LlamaIndex's
    assert own_fields <= schema["properties"].keys()
    assert [name for name in sorted(own_fields) if not schema["properties"][name].get("description")] == []
    json.dumps(schema)


def test_folders_of_a_policy_survive_serialization(tmp_path: Path) -> None:
    rerank = Qwen3VLRerank(model="tiny", policy=MediaPolicy(folders=(tmp_path, "photos")))
    restored = Qwen3VLRerank.from_dict(json.loads(json.dumps(rerank.to_dict())))
    assert restored.policy.folders == rerank.policy.folders


@pytest.mark.skipif(os.name != "posix", reason="decoder processes inherit file descriptors")
def test_policy_with_folders_decodes_in_processes_of_its_own(library_folder: Path, decoder_leases: list[str]) -> None:
    policy = MediaPolicy(folders=(library_folder,))
    found = [NodeWithScore(node=ImageNode(image_path=str(library_folder / "star.png")))]
    for use in (
        lambda: Qwen3VLEmbedding(model="tiny", policy=policy)([found[0].node]),
        lambda: Qwen3VLRerank(model="tiny", policy=policy, on_error="raise").postprocess_nodes(found, query_str="a"),
        lambda: Qwen3VLPictures(policy=policy).postprocess_nodes(found),
    ):
        decoder_leases.clear()
        assert use()
        assert decoder_leases


@pytest.mark.parametrize("component", [Qwen3VLEmbedding, Qwen3VLRerank])
def test_device_of_the_environment_is_not_that_of_a_server_in_pickles_either(
    component: type[Qwen3VLEmbedding | Qwen3VLRerank], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN3VL_DEVICE", "cuda")
    url = "http://127.0.0.1:9"
    for made, has_device in ((component(model=url), False), (component(model=url, device="cpu"), True)):
        for copied in (made, pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
            assert ("device" in copied.engine_arguments(copied.model, None)) == has_device


@pytest.mark.parametrize("component", [Qwen3VLEmbedding, Qwen3VLRerank])
@pytest.mark.parametrize("device_there", ["cuda", "cpu", None])
def test_device_of_the_environment_is_not_that_of_a_server_in_dumps_either(
    component: type[Qwen3VLEmbedding | Qwen3VLRerank], device_there: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN3VL_DEVICE", "cuda")
    url = "http://127.0.0.1:9,http://127.0.0.1:8"
    made, local, chosen = component(model=url), component(model="folder"), component(model=url, device="cuda")
    dumps = [each.to_json() for each in (made, local, chosen)]
    if device_there is None:
        monkeypatch.delenv("QWEN3VL_DEVICE")
    else:
        monkeypatch.setenv("QWEN3VL_DEVICE", device_there)
    restored, restored_local, restored_chosen = map(component.from_json, dumps)
    for copied in (restored, component.from_dict(made.to_dict()), component.model_validate(made.model_dump())):
        assert copied == made
        assert copied.engine_arguments(url, None) == made.engine_arguments(url, None)
    assert restored_local == local
    assert restored_local.engine_arguments("folder", None)["device"] == "cuda"
    # A device that was set remains an error with a server.
    assert restored_chosen.engine_arguments(url, None)["device"] == "cuda"
    assert restored_chosen == chosen != made


def test_settings_with_a_mistake_in_the_url_can_be_dumped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QWEN3VL_DEVICE", "cuda")
    made = Qwen3VLEmbedding(model="http://host:port")
    assert Qwen3VLEmbedding.from_dict(made.to_dict()) == made

"""`Qwen3VLEncoder`: what its inputs and instructions become, and what is known of the models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, Value, Video
from mteb._create_dataloaders import _create_dataloader_from_texts, create_dataloader
from mteb.models import ModelMeta
from mteb.models.models_protocols import CrossEncoderProtocol, EncoderProtocol, SearchProtocol
from mteb.types import PromptType
from PIL import Image as PillowImage
from qwen3vl_mteb import OFFICIAL_INSTRUCTIONS, Qwen3VLCrossEncoder, Qwen3VLEncoder, StoreSearch
from qwen3vl_mteb.inputs import read_rows, row_key, to_input
from qwen3vl_mteb.instructions import find_instruction, find_instruction_or_type
from qwen3vl_mteb.meta import model_meta
from qwen3vl_server import SERVER_POLICY, create_app
from torch.utils.data import DataLoader

from qwen3vl import BatchError, Embedder, InputError, Reranker
from qwen3vl.demo.scenes import random_clip, random_scene
from tests.mteb.drawn_tasks import DrawnClips, DrawnScenes, clip_bytes, metadata
from tests.support.model_server import ModelServer

TASK: dict[str, Any] = {"task_metadata": metadata("Mixed", "it2it"), "hf_split": "test", "hf_subset": "default"}
CAPTION = "a red circle at the top"


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    """A dataset of a task's own kind."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]


def loader(*rows: dict[str, Any], batch_size: int = 2) -> Any:
    def collate(batch: list[dict[str, Any]]) -> dict[str, list[Any]]:
        return {name: [row[name] for row in batch] for name in batch[0]}

    return DataLoader(Rows(list(rows)), batch_size=batch_size, collate_fn=collate)


@pytest.fixture(scope="module")
def scene() -> PillowImage.Image:
    from random import Random

    return random_scene(Random(1)).draw(Random(2))


@pytest.fixture(scope="module")
def clip() -> bytes:
    from random import Random

    return clip_bytes(random_clip(Random(1)), Random(2))


def test_the_protocols_are_those_of_mteb(encoder: Qwen3VLEncoder, cross_encoder: Qwen3VLCrossEncoder) -> None:
    search = StoreSearch(encoder)
    assert isinstance(encoder, EncoderProtocol)
    assert not isinstance(encoder, SearchProtocol)
    assert isinstance(cross_encoder, CrossEncoderProtocol)
    assert isinstance(search, SearchProtocol)
    assert not isinstance(search, EncoderProtocol)
    assert not isinstance(search, CrossEncoderProtocol)


def test_vectors_are_those_of_the_embedder(encoder: Qwen3VLEncoder, scene: PillowImage.Image, clip: bytes) -> None:
    rows: list[dict[str, Any]] = [
        {"text": CAPTION, "image": None, "video": None},
        {"text": "", "image": scene, "video": None},
        {"text": CAPTION, "image": scene, "video": {"bytes": clip, "path": None}},
        {"text": "", "image": None, "video": None},
    ]
    found = encoder.encode(loader(*rows), **TASK, prompt_type=PromptType.document)
    inputs: list[Any] = [CAPTION, scene, {"text": CAPTION, "image": scene, "video": clip}, "NULL"]
    np.testing.assert_allclose(found, encoder.embedder.embed(inputs), atol=1e-5)
    assert found.dtype == np.float32


def test_a_dataset_of_mteb_is_read_with_its_images_and_videos(encoder: Qwen3VLEncoder, clip: bytes) -> None:
    """No video is decoded by datasets, which would need torchcodec."""
    task = DrawnClips()
    task.load_data()
    corpus = task.dataset["default"]["test"]["corpus"]
    assert corpus.features["video"] == Video()
    batches = create_dataloader(corpus, task_metadata=task.metadata, prompt_type=PromptType.document, batch_size=3)
    rows = list(read_rows(batches))
    assert [row["id"] for row in rows] == list(corpus["id"])
    files = [video["bytes"] for video in corpus.cast_column("video", Video(decode=False))["video"]]
    assert [to_input(row)["video"] for row in rows] == files
    found = encoder.encode(batches, **TASK, prompt_type=PromptType.document)
    np.testing.assert_allclose(found, encoder.embedder.embed([{"video": file} for file in files]), atol=1e-5)


def test_tensors_have_the_channels_first(encoder: Qwen3VLEncoder, scene: PillowImage.Image) -> None:
    pixels = torch.from_numpy(np.array(scene)).movedim(-1, 0)
    frames = torch.stack([pixels, pixels.flip(-1), pixels, pixels.flip(-2)])
    rows = [
        {"image": pixels, "video": None},
        {"image": pixels / 255, "video": None},
        {"image": None, "video": frames},
        {"image": None, "video": frames.movedim(1, -1)},
    ]
    found = encoder.encode(loader(*rows), **TASK, prompt_type=PromptType.document)
    frame_list = [PillowImage.fromarray(frame) for frame in frames.movedim(1, -1).numpy()]
    expected = encoder.embedder.embed([scene, {"video": frame_list}])
    np.testing.assert_allclose(found, expected[[0, 0, 1, 1]], atol=1e-5)


def test_gray_tensors_are_images_too(encoder: Qwen3VLEncoder, scene: PillowImage.Image) -> None:
    gray = torch.from_numpy(np.array(scene.convert("L")))[None]
    found = encoder.encode(
        loader({"image": gray, "video": None}, {"image": None, "video": gray[None].repeat(2, 1, 1, 1)}),
        **TASK,
        prompt_type=PromptType.document,
    )
    image = scene.convert("L").convert("RGB")
    np.testing.assert_allclose(found, encoder.embedder.embed([image, {"video": [image, image]}]), atol=1e-5)


def test_images_of_a_row_may_be_several(encoder: Qwen3VLEncoder, scene: PillowImage.Image) -> None:
    other = scene.rotate(180)
    found = encoder.encode(loader({"image": [scene, other]}), **TASK, prompt_type=PromptType.document)
    np.testing.assert_allclose(found, encoder.embedder.embed([{"image": [scene, other]}]), atol=1e-5)


def test_columns_that_the_model_does_not_read_are_not_loaded(encoder: Qwen3VLEncoder, scene: PillowImage.Image) -> None:
    features = Features({"id": Value("string"), "image": Image(), "audio": Value("string")})
    rows = Dataset.from_dict({"id": ["a"], "image": [scene], "audio": [None]}, features=features)
    assert [
        set(row) for row in read_rows(DataLoader(rows, collate_fn=lambda batch: {k: [batch[0][k]] for k in batch[0]}))
    ] == [{"id", "image"}]
    with pytest.raises(InputError, match=r"the columns sound.*text, image and video"):
        list(read_rows(loader({"sound": b""})))


def test_errors_name_the_row(encoder: Qwen3VLEncoder, scene: PillowImage.Image) -> None:
    rows: list[dict[str, Any]] = [{"image": scene}, {"image": scene}, {"image": torch.full((3, 8, 8), 255.0)}]
    with pytest.raises(InputError, match=r"between 255 and 255.*from 0 to 1"):
        encoder.encode(loader(*rows), **TASK, prompt_type=PromptType.document)
    broken = {"video": {"bytes": b"no video", "path": None}}
    with pytest.raises(BatchError, match=r"1 of 2 items failed: item 1 \(video of 8 bytes\)"):
        encoder.encode(loader({"video": [scene, scene]}, broken), **TASK, prompt_type=PromptType.document)


def test_precision_is_refused(encoder: Qwen3VLEncoder) -> None:
    with pytest.raises(ValueError, match=r"precision is 'int8'.*StoreSearch"):
        encoder.encode(loader({"text": CAPTION}), **TASK, precision="int8")
    assert len(encoder.encode(loader({"text": CAPTION}), **TASK, precision="float32")) == 1


@pytest.mark.parametrize("name", ["VidoreDocVQARetrieval", "SciFact", "STS12", "CIFAR10"])
def test_queries_have_the_instruction_of_the_task_and_documents_that_of_the_model(
    name: str, encoder: Qwen3VLEncoder
) -> None:
    task = {**TASK, "task_metadata": mteb.get_task(name).metadata}
    instructions = {
        "VidoreDocVQARetrieval": "Find a document image that matches the given query.",
        "SciFact": "Given a scientific claim, retrieve documents that support or refute the claim",
        "STS12": "Retrieve semantically similar text.",
        "CIFAR10": "Classify user passages.",
    }
    prompt_type = None if name in ("STS12", "CIFAR10") else PromptType.query
    found = encoder.encode(loader({"text": CAPTION}), **task, prompt_type=prompt_type)
    np.testing.assert_allclose(found, encoder.embedder.embed([CAPTION], instruction=instructions[name]), atol=1e-5)
    found = encoder.encode(loader({"text": CAPTION}), **task, prompt_type=PromptType.document)
    np.testing.assert_allclose(found, encoder.embedder.embed([CAPTION]), atol=1e-5)


def test_names_of_classes_are_documents(encoder: Qwen3VLEncoder, clip: bytes) -> None:
    """mteb passes them and the videos to classify without saying which is which."""
    embed, instruction = encoder.embedder.embed, OFFICIAL_INSTRUCTIONS["HMDB51ZeroShot"]
    task = {**TASK, "task_metadata": mteb.get_task("HMDB51ZeroShot").metadata}
    found = encoder.encode(_create_dataloader_from_texts(["jump", "run"]), **task)
    np.testing.assert_allclose(found, embed(["jump", "run"]), atol=1e-5)
    found = encoder.encode(loader({"video": {"bytes": clip, "path": None}}), **task)
    np.testing.assert_allclose(found, embed([{"video": clip}], instruction=instruction), atol=1e-5)
    assert np.abs(found - embed([{"video": clip}])).max() > 1e-3


def test_the_callers_instructions_come_first() -> None:
    vidore, scifact, sts = (mteb.get_task(name).metadata for name in ("VidoreDocVQARetrieval", "SciFact", "STS12"))
    own = {"VidoreDocVQARetrieval": "mine", "STS": "for all", "Retrieval": "by type", "document": "read"}
    assert find_instruction(vidore, PromptType.query, own) == "mine"
    assert find_instruction(sts, None, own) == "for all"
    assert find_instruction(scifact, PromptType.query, own) == "by type"
    assert find_instruction(scifact, PromptType.document, own) == "read"
    own |= {"SciFact-document": "abstract", "Retrieval-document": "passage"}
    assert find_instruction(scifact, PromptType.document, own) == "abstract"
    assert find_instruction(vidore, PromptType.document, {}) is None
    assert find_instruction_or_type(vidore, PromptType.document, {}) is None


def test_the_official_instructions_are_for_tasks_that_mteb_has() -> None:
    tasks = {task.metadata.name: task.metadata for task in mteb.get_tasks(tasks=list(OFFICIAL_INSTRUCTIONS))}
    assert tasks.keys() == OFFICIAL_INSTRUCTIONS.keys()
    for task in tasks.values():
        assert "image" in task.modalities or "video" in task.modalities
    assert OFFICIAL_INSTRUCTIONS["VisRAGRetMPDocVQA"] == "Find a document image that matches the given query."
    assert OFFICIAL_INSTRUCTIONS["BreakfastClassification"].endswith("cooking in the video.")


def test_dimensions_truncate_vectors() -> None:
    encoder = Qwen3VLEncoder("tiny", device="cpu", dimensions=16)
    found = encoder.encode(loader({"text": CAPTION}), **TASK)
    assert found.shape == (1, 16)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert encoder.mteb_model_meta.embed_dim == 16


def test_similarities_are_cosines(encoder: Qwen3VLEncoder) -> None:
    vectors = encoder.encode(loader({"text": CAPTION}, {"text": "a blue star"}, {"text": "NULL"}), **TASK)
    np.testing.assert_allclose(encoder.similarity(2 * vectors, vectors).numpy(), vectors @ vectors.T, atol=1e-5)
    pairs = encoder.similarity_pairwise(vectors, vectors[[2, 0, 1]])
    np.testing.assert_allclose(pairs, (vectors * vectors[[2, 0, 1]]).sum(axis=1), atol=1e-5)


def test_a_model_may_be_the_url_of_a_server(
    encoder: Qwen3VLEncoder, cross_encoder: Qwen3VLCrossEncoder, clip: bytes
) -> None:
    embedder = Embedder("tiny", device="cpu", policy=SERVER_POLICY)
    reranker = Reranker("tiny", device="cpu", policy=SERVER_POLICY)
    rows = loader({"text": CAPTION, "video": None}, {"text": "", "video": {"bytes": clip, "path": None}})
    with ModelServer(create_app(embedder=embedder, reranker=reranker)) as server:
        remote, remote_reranker = Qwen3VLEncoder(server.url), Qwen3VLCrossEncoder(server.url)
        np.testing.assert_allclose(remote.encode(rows, **TASK), encoder.encode(rows, **TASK), atol=1e-5)
        found = remote_reranker.predict(rows, rows, **TASK)
    np.testing.assert_allclose(found, cross_encoder.predict(rows, rows, **TASK), atol=1e-5)
    assert remote.mteb_model_meta.model_dump() == encoder.mteb_model_meta.model_dump()


def test_settings_beside_a_model_are_refused(tiny_embedder: Embedder, tiny_reranker: Reranker) -> None:
    with pytest.raises(TypeError, match="has its settings already"):
        Qwen3VLEncoder(tiny_embedder, dimensions=8)
    with pytest.raises(TypeError, match="has its settings already"):
        Qwen3VLCrossEncoder(tiny_reranker, device="cpu")


def test_metadata_say_what_is_known(encoder: Qwen3VLEncoder, cross_encoder: Qwen3VLCrossEncoder) -> None:
    meta, reranker_meta = encoder.mteb_model_meta, cross_encoder.mteb_model_meta
    assert isinstance(meta, ModelMeta)
    assert meta.name == "qwen3vl/tiny"
    assert set(meta.modalities) == {"text", "image", "video"}
    assert meta.embed_dim == encoder.embedder.dimension
    assert meta.similarity_fn_name == "cosine"
    assert not meta.is_cross_encoder
    assert reranker_meta.is_cross_encoder
    assert reranker_meta.embed_dim is None
    assert meta.experiment_name != reranker_meta.experiment_name


@pytest.mark.parametrize("model", ["Embedding-2B", "Embedding-8B", "Reranker-2B", "Reranker-8B"])
def test_metadata_of_published_models_are_those_of_mteb(model: str, encoder: Qwen3VLEncoder) -> None:
    kind = "dense" if model.startswith("Embedding") else "cross-encoder"
    recipe = replace(encoder.embedder.recipe, model=f"Qwen/Qwen3-VL-{model}", revision="0" * 40, dimensions=64)
    meta = model_meta(recipe, kind, loader=Qwen3VLEncoder, name=None, settings={"dtype": "bfloat16"})  # type: ignore[arg-type]
    known = mteb.get_model_meta(f"Qwen/Qwen3-VL-{model}")
    assert meta.name == known.name
    for field in ("n_parameters", "n_embedding_parameters", "license", "release_date", "languages", "reference"):
        assert getattr(meta, field) == getattr(known, field) is not None
    assert (meta.revision, meta.max_tokens) == ("0" * 40, recipe.max_length)
    assert meta.embed_dim == (64 if kind == "dense" else None)
    assert meta.experiment_kwargs is not None
    assert meta.experiment_kwargs["dtype"] == "bfloat16"
    assert known.experiment_kwargs is None  # mteb's own metadata are not changed


def test_a_name_may_be_given(tiny_embedder: Embedder) -> None:
    assert Qwen3VLEncoder(tiny_embedder, name="mine/tuned").mteb_model_meta.name == "mine/tuned"


def test_rows_have_a_key_by_id_or_content(scene: PillowImage.Image, clip: bytes) -> None:
    rows: list[dict[str, Any]] = [
        {"text": CAPTION},
        {"text": CAPTION, "image": scene},
        {"text": CAPTION, "image": scene.rotate(90)},
        {"image": scene},
        {"video": {"bytes": clip, "path": None}},
        {"video": [scene, scene]},
        {"image": [scene, scene]},
        {"id": "1", "text": CAPTION},
        {"id": "2", "text": CAPTION},
    ]
    keys = [row_key(row) for row in rows]
    assert len(set(keys)) == len(keys)
    assert row_key({"text": CAPTION, "image": scene.copy()}) == keys[1]
    assert row_key({"id": "1", "text": ""}) == keys[7]


def test_the_drawn_scenes_are_no_files() -> None:
    task = DrawnScenes()
    task.load_data()
    batches = create_dataloader(
        task.dataset["default"]["test"]["corpus"], task_metadata=task.metadata, prompt_type=PromptType.document
    )
    assert all(isinstance(to_input(row)["image"], PillowImage.Image) for row in read_rows(batches))

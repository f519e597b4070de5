"""Tasks of mteb on drawn scenes and clips, which the tiny models have learned to read: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, Features, Image, Value, Video
from mteb.abstasks import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata

from qwen3vl.demo.library import write_clip
from qwen3vl.demo.scenes import Clip, Scene, near_miss, near_miss_clip
from tools.tiny.data import held_out_clips, held_out_scenes

NUM_SCENES, NUM_CLIPS, NUM_SLIDES = 40, 8, 12


def metadata(name: str, category: str, task_type: str = "Any2AnyRetrieval") -> Any:
    modalities = {"i": "image", "t": "text", "v": "video"}
    return TaskMetadata(
        name=name,
        description="Drawn scenes, found by their captions.",
        dataset={"path": "drawn", "revision": "1"},
        type=task_type,
        category=category,
        modalities=sorted({modalities[letter] for letter in category if letter in modalities}),
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
    )


def image_rows(images: dict[str, Any], **columns: Sequence[str]) -> Dataset:
    features = Features({"id": Value("string"), "image": Image(), **dict.fromkeys(columns, Value("string"))})
    return Dataset.from_dict({"id": list(images), "image": list(images.values()), **columns}, features=features)


def text_rows(texts: dict[str, str]) -> Dataset:
    return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})


def clip_bytes(clip: Clip, random: Random) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_clip(path, clip, random)
        return path.read_bytes()


def png(scene: Scene, random: Random) -> Any:
    """Return a scene as a task's file gives it: an image that was read, not drawn."""
    from PIL import Image as PillowImage

    file = BytesIO()
    scene.draw(random).save(file, "PNG")
    return PillowImage.open(file)


class DrawnTask(AbsTaskRetrieval):  # type: ignore[misc]
    """A task whose data are made here."""

    data_loaded: bool

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        if self.data_loaded:
            return
        corpus, queries, relevant, ranked = self.draw()
        self.dataset = {
            "default": {"test": {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": ranked}}
        }
        self.data_loaded = True

    def draw(self) -> tuple[Dataset, Dataset, dict[str, dict[str, int]], dict[str, list[str]] | None]:
        raise NotImplementedError


class DrawnScenes(DrawnTask):
    """Finds a scene among all others and, for each, one that differs in one attribute of one thing."""

    metadata = metadata("DrawnScenes", "t2i")

    def draw(self) -> Any:
        random = Random(1)
        scenes = held_out_scenes(11, NUM_SCENES)
        images = {f"scene-{number}": png(scene, random) for number, scene in enumerate(scenes)}
        images |= {f"other-{number}": png(near_miss(scene, random), random) for number, scene in enumerate(scenes)}
        captions = {f"caption-{number}": scene.caption(number % 3) for number, scene in enumerate(scenes)}
        relevant = {f"caption-{number}": {f"scene-{number}": 1} for number in range(NUM_SCENES)}
        return image_rows(images), text_rows(captions), relevant, None


class DrawnScenesReranking(DrawnScenes):
    """Puts the scene before those that differ in one attribute, and before others."""

    metadata = metadata("DrawnScenesReranking", "t2i", "Reranking")

    def draw(self) -> Any:
        corpus, queries, relevant, _ = super().draw()
        ranked = {
            f"caption-{number}": [
                f"other-{number}",
                *(f"scene-{(number + step) % NUM_SCENES}" for step in range(5, 0, -1)),
                f"scene-{number}",
            ]
            for number in range(NUM_SCENES)
        }
        return corpus, queries, relevant, ranked


class DrawnClips(DrawnTask):
    """Finds a clip by the words of what moves in it, and whereto."""

    metadata = metadata("DrawnClips", "t2v")

    def draw(self) -> Any:
        random = Random(2)
        clips = held_out_clips(12, NUM_CLIPS)
        videos = {f"clip-{number}": clip_bytes(clip, random) for number, clip in enumerate(clips)}
        videos |= {
            f"other-{number}": clip_bytes(near_miss_clip(clip, random), random) for number, clip in enumerate(clips)
        }
        corpus = Dataset.from_dict({"id": list(videos), "video": list(videos.values())}).cast_column("video", Video())
        captions = {f"caption-{number}": clip.caption() for number, clip in enumerate(clips)}
        relevant = {f"caption-{number}": {f"clip-{number}": 1} for number in range(NUM_CLIPS)}
        return corpus, text_rows(captions), relevant, None


class DrawnSlides(DrawnTask):
    """Finds pages, an image and the words on it each, by an image of the same scene, drawn again."""

    metadata = metadata("DrawnSlides", "i2it")

    def draw(self) -> Any:
        random = Random(3)
        scenes = held_out_scenes(13, NUM_SLIDES)
        pages = {f"page-{number}": png(scene, random) for number, scene in enumerate(scenes)}
        corpus = image_rows(pages, text=[scene.caption(1) for scene in scenes])
        queries = image_rows({f"sketch-{number}": png(scene, random) for number, scene in enumerate(scenes)})
        relevant = {f"sketch-{number}": {f"page-{number}": 1} for number in range(NUM_SLIDES)}
        return corpus, queries, relevant, None


class DrawnPages(DrawnTask):
    """Finds pages by words: one half shows the scene and says something else, the other says it and shows another."""

    metadata = metadata("DrawnPages", "t2it")

    def draw(self) -> Any:
        random = Random(4)
        scenes = held_out_scenes(14, 2 * NUM_SLIDES)
        wanted, others = scenes[:NUM_SLIDES], scenes[NUM_SLIDES:]
        pages, texts = {}, []
        for number, (scene, other) in enumerate(zip(wanted, others, strict=True)):
            shown, said = (scene, "minutes of the meeting") if number % 2 else (other, scene.caption(2))
            pages[f"page-{number}"] = png(shown, random)
            texts.append(said)
        captions = {f"caption-{number}": scene.caption() for number, scene in enumerate(wanted)}
        relevant = {f"caption-{number}": {f"page-{number}": 1} for number in range(NUM_SLIDES)}
        return image_rows(pages, text=texts), text_rows(captions), relevant, None

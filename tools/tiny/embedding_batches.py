"""Training batches of the tiny embedding model."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from qwen3vl.demo.scenes import Clip, Scene, near_miss, near_miss_clip, random_clip, random_scene
from qwen3vl.processing.templates import PromptContent, VisionPart
from tools.tiny.data import VisionSample, draw_from_split, image_sample, vision_sample


@dataclass(frozen=True, slots=True)
class CaptionBatch:
    """Scenes, then clips, each with a caption.

    Attributes:
        drawn: What is shown.
        samples: The drawn images and clips.
        described: What each caption describes: the same in another order, and sometimes one thing less.
        styles: The style of each caption.
        matches: Which captions match which images and clips, (n, n), bool.
    """

    drawn: list[Scene | Clip]
    samples: list[VisionSample]
    described: list[Scene | Clip]
    styles: list[int]
    matches: Tensor

    @property
    def captions(self) -> list[str]:
        """The captions."""
        return [described.caption(style) for described, style in zip(self.described, self.styles, strict=True)]

    @property
    def media(self) -> list[PromptContent[VisionPart]]:
        """The images and clips, as contents of prompts."""
        return [
            PromptContent(images=(sample.vision,))
            if isinstance(drawn, Scene)
            else PromptContent(videos=(sample.vision,))
            for drawn, sample in zip(self.drawn, self.samples, strict=True)
        ]


def draw_caption_batch(random: Random, near_miss_share: float, num_scenes: int, num_clips: int) -> CaptionBatch:
    """Draw scenes and clips with captions.

    Args:
        random: The source of randomness.
        near_miss_share: The share of scenes that are followed by near-misses.
        num_scenes: How many scenes.
        num_clips: How many clips.

    Returns:
        The batch.
    """
    scenes = _draw_scenes(random, near_miss_share, num_scenes)
    clips: list[Clip] = []
    while len(clips) < num_clips:
        clips.append(draw_from_split(random_clip, random, held_out=False))
        if random.random() < 0.5:
            clips.append(near_miss_clip(clips[-1], random))
    clips = clips[:num_clips]
    described: list[Scene | Clip] = []
    for scene in scenes:
        things = random.sample(scene.things, len(scene.things))
        if len(things) > 1 and random.random() < 0.1:
            things = things[:-1]
        described.append(Scene(tuple(things)))
    described += clips
    styles = [random.randrange(3) for _ in scenes] + [random.randrange(2) for _ in clips]
    drawn: list[Scene | Clip] = [*scenes, *clips]
    # A caption matches whatever shows everything that it names. A clip without a still thing has None in its key.
    caption_keys = [item.key - {None} for item in described]
    matches = torch.tensor([[key <= item.key for item in drawn] for key in caption_keys])
    return CaptionBatch(drawn, [vision_sample(item, random) for item in drawn], described, styles, matches)


def _draw_scenes(random: Random, near_miss_share: float, count: int) -> list[Scene]:
    scenes: list[Scene] = []
    while len(scenes) < count:
        scenes.append(draw_from_split(random_scene, random, held_out=False))
        if random.random() < near_miss_share:
            for _ in range(3):
                original = scenes[-1] if random.random() < 0.5 else scenes[-2 if len(scenes) > 1 else -1]
                miss = near_miss(original, random)
                if not any(miss.key == other.key for other in scenes[-4:]):
                    scenes.append(miss)
    return scenes[:count]


@dataclass(frozen=True, slots=True)
class ComposedBatch:
    """Queries of an image and a text that together describe a scene.

    Attributes:
        queries: The queries.
        targets: The scenes, as images.
        samples: The images of both.
    """

    queries: list[PromptContent[VisionPart]]
    targets: list[PromptContent[VisionPart]]
    samples: list[VisionSample]


def draw_composed_batch(random: Random, count: int) -> ComposedBatch:
    """Draw queries of an image and a text.

    Args:
        random: The source of randomness.
        count: How many queries.

    Returns:
        The batch.
    """
    batch = ComposedBatch([], [], [])
    while len(batch.targets) < count:
        scene = draw_from_split(random_scene, random, held_out=False)
        if len(scene.things) < 2:
            continue
        split = random.randrange(1, len(scene.things))
        part = image_sample(Scene(scene.things[:split], random.randrange(3)), random)
        whole = image_sample(scene, random)
        text = Scene(scene.things[split:]).caption(random.randrange(3))
        batch.queries.append(PromptContent(images=(part.vision,), texts=(text,)))
        batch.targets.append(PromptContent(images=(whole.vision,)))
        batch.samples.extend((part, whole))
    return batch

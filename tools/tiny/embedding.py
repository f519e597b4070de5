"""Trains the tiny embedding model: vision first, then contrast between captions and what they describe."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from qwen3vl.demo.scenes import (
    COLOURS,
    SHAPES,
    Clip,
    Scene,
    near_miss,
    near_miss_clip,
    random_clip,
    random_scene,
)
from qwen3vl.engine.packing import Pack
from qwen3vl.model import Qwen3VL
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.templates import PromptContent, VisionPart
from qwen3vl.processing.tokenizer import Tokenizer
from tools.tiny.checkpoint import new_model, prepare, save
from tools.tiny.data import Seen, draw_until, embed_prompts, forward, picture, see
from tools.tiny.reading import CELLS, CLIP_TOKENS, COURSES, Label, Reader, label, moving, place_in, shown, told

log = logging.getLogger("train")
DIMENSIONS = (128, 64, 32)
SCENES, CLIPS, MIXED = 80, 12, 6
"""Of a step: captioned scenes, captioned clips, and pictures with words."""
FURTHER_SCENES, FURTHER_CLIPS = 64, 20
"""The same of training that goes on: clips are learnt later than scenes."""
READ_LAYER = 1
"""After this layer pictures and words are read by one set of heads."""


def labels_of(made: Sequence[Scene | Clip]) -> tuple[Tensor, Tensor]:
    """Rows of the encoded features that show something known, and their labels: (n,) and (n, 4)."""
    rows: list[int] = []
    labels: list[Label] = []
    first = 0
    for each in made:
        known = shown(each)
        rows += [first + token for token in known]
        labels += known.values()
        first += CELLS if isinstance(each, Scene) else CLIP_TOKENS
    return torch.tensor(rows), torch.tensor(labels)


def train_vision(model: Qwen3VL, steps: int, random: Random) -> None:
    """Throw-away heads read from merged tokens what stands there, where that is, and its course.

    Without the place, places stay at chance for as long as colours and shapes alone tell pictures apart.
    """
    readers = [Reader(model.config.vision.out_hidden_size, nothing=True) for _ in range(3)]
    parameters = [*model.visual.parameters(), *nn.ModuleList(readers).parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        spent = step / steps
        scenes: list[Scene | Clip] = [draw_until(random_scene, random, held=False) for _ in range(80)]
        clips: list[Scene | Clip] = [draw_until(random_clip, random, held=False) for _ in range(5)]
        seen = [see(each, random) for each in scenes + clips]
        features = model.encode_vision(torch.cat([each.patches for each in seen]), [each.vision.grid for each in seen])
        rows, labels = labels_of(scenes + clips)
        outputs = (features.tokens, *features.deepstack)
        loss = torch.stack(
            [reader(tokens[rows], labels) for reader, tokens in zip(readers, outputs, strict=True)]
        ).mean()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 30) * (0.55 + 0.45 * math.cos(math.pi * spent))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 20 == 0:
            right = readers[0].right(features.tokens[rows], labels)
            log.info(
                "vision %d: loss %.3f, right: colour %.2f, shape %.2f, place %.2f, course %.2f",
                step,
                loss.item(),
                *right,
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """Scenes, then clips, and what each caption says of its own; `fits` (captions, media) names what else it fits."""

    shown: list[Scene | Clip]
    seen: list[Seen]
    said: list[Scene | Clip]
    styles: list[int]
    fits: Tensor

    @property
    def captions(self) -> list[str]:
        return [said.caption(style) for said, style in zip(self.said, self.styles, strict=True)]

    @property
    def media(self) -> list[PromptContent[VisionPart]]:
        return [
            PromptContent(images=(seen.vision,)) if isinstance(shown, Scene) else PromptContent(videos=(seen.vision,))
            for shown, seen in zip(self.shown, self.seen, strict=True)
        ]


def batch(random: Random, near: float, size: tuple[int, int] = (SCENES, CLIPS)) -> Batch:
    """Scenes and clips, so many of each; a share `near` of the scenes is followed by near-misses."""
    scenes: list[Scene] = []
    while len(scenes) < size[0]:
        scenes.append(draw_until(random_scene, random, held=False))
        if random.random() < near:
            for _ in range(3):
                miss = near_miss(scenes[-1] if random.random() < 0.5 else scenes[-2 if len(scenes) > 1 else -1], random)
                if not any(miss.key == other.key for other in scenes[-4:]):
                    scenes.append(miss)
    scenes = scenes[: size[0]]
    clips: list[Clip] = []
    while len(clips) < size[1]:
        clips.append(draw_until(random_clip, random, held=False))
        if random.random() < 0.5:
            clips.append(near_miss_clip(clips[-1], random))
    clips = clips[: size[1]]
    said: list[Scene | Clip] = []
    for scene in scenes:
        things = random.sample(scene.things, len(scene.things))
        if len(things) > 1 and random.random() < 0.1:
            things = things[:-1]
        said.append(Scene(tuple(things)))
    said += clips
    styles = [random.randrange(3) for _ in scenes] + [random.randrange(2) for _ in clips]
    keys = [each.key - {None} for each in said]
    made: list[Scene | Clip] = [*scenes, *clips]
    others = torch.tensor([[words <= each.key for each in made] for words in keys])
    return Batch(made, [see(each, random) for each in made], said, styles, others)


def mixed(random: Random) -> tuple[list[PromptContent[VisionPart]], list[PromptContent[VisionPart]], list[Seen]]:
    """Queries of a picture and words that together describe a scene, and those scenes."""
    queries: list[PromptContent[VisionPart]] = []
    targets: list[PromptContent[VisionPart]] = []
    seen: list[Seen] = []
    while len(targets) < MIXED:
        scene = draw_until(random_scene, random, held=False)
        if len(scene.things) < 2:
            continue
        cut = random.randrange(1, len(scene.things))
        shown = picture(Scene(scene.things[:cut], random.randrange(3)), random)
        whole = picture(scene, random)
        words = Scene(scene.things[cut:]).caption(random.randrange(3))
        queries.append(PromptContent(images=(shown.vision,), texts=(words,)))
        targets.append(PromptContent(images=(whole.vision,)))
        seen += [shown, whole]
    return queries, targets, seen


def contrast(words: Tensor, media: Tensor, masked: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE at every dimension; pairs that fit though they are not partners count for nothing."""
    losses = []
    target = torch.arange(len(words))
    for dimension in DIMENSIONS:
        scores = scale * normalize(words[:, :dimension], dim=-1) @ normalize(media[:, :dimension], dim=-1).T
        scores = scores.masked_fill(masked, -1e4)
        losses += [cross_entropy(scores, target), cross_entropy(scores.T, target)]
    return torch.stack(losses).mean()


def multi_hot(made: Sequence[Scene | Clip]) -> Tensor:
    """(scenes and clips, 9 * 14 + 26): colour and shape at each place, and colour, shape and course of what moves."""
    colours, shapes = len(COLOURS), len(SHAPES)
    each_place = colours + shapes
    hot = torch.zeros(len(made), CELLS * each_place + each_place + COURSES)
    for row, each in zip(hot, made, strict=True):
        standing = each.things if isinstance(each, Scene) else (each.still,) if each.still else ()
        for colour, shape, place, _ in map(label, standing):
            row[place * each_place + colour] = row[place * each_place + colours + shape] = 1
        if isinstance(each, Clip):
            colour, shape, _, course = moving(each)
            last = row[CELLS * each_place :]
            last[colour] = last[colours + shape] = last[each_place + course] = 1
    return hot


def train(folder: Path, steps: int, vision_steps: int, seed: int = 7, base: Path | None = None) -> None:
    """Writes a trained checkpoint to `folder`; with `base`, goes on from that one, with near-misses from the start."""
    random = Random(seed if base is None else seed + 1)
    prepare(folder, layers=4, append_endoftext=True)
    model = new_model(folder, seed)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    if base is None:
        train_vision(model, vision_steps, random)
    else:
        stored = load_file(base / "model.safetensors")
        model.load_state_dict({name.removeprefix("model."): value.float() for name, value in stored.items()})
    counts = (SCENES, CLIPS) if base is None else (FURTHER_SCENES, FURTHER_CLIPS)
    save(model, folder)
    average = copy.deepcopy(model)
    scale = nn.Parameter(torch.tensor(math.log(20.0 if base is None else 34.0)))
    width = model.config.text.hidden_size
    tellers = nn.ModuleList(nn.Linear(width, multi_hot([Scene(())]).shape[1]) for _ in range(2))
    reader = Reader(width)
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    peak = 1.5e-3 if base is None else 1.0e-3
    optimiser = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.02, "factor": 1.0},
            {"params": plain, "weight_decay": 0.0, "factor": 1.0},
            {"params": [scale], "weight_decay": 0.0, "factor": 10.0},
            {"params": [*tellers.parameters(), *reader.parameters()], "weight_decay": 0.0, "factor": 1.0},
        ],
        lr=peak,
        betas=(0.9, 0.98),
    )
    binary = nn.BCEWithLogitsLoss(reduction="none")
    for step in range(steps):
        spent = step / steps
        near = 0.3 if base is not None else min(0.3, max(0.0, spent - 0.2))
        drawn = batch(random, near, counts)
        queries, targets, mixed_seen = mixed(random)
        captions: list[PromptContent[VisionPart]] = [PromptContent(texts=(caption,)) for caption in drawn.captions]
        prompts = embed_prompts(tokenizer, captions + drawn.media + queries + targets)
        states = forward(model, prompts, drawn.seen + mixed_seen, [READ_LAYER])
        size = len(captions)
        words, media, asked, meant = torch.split(states.last, [size, size, MIXED, MIXED])
        masked = torch.zeros(size + MIXED, size + MIXED, dtype=torch.bool)
        masked[:size, :size] = drawn.fits
        masked.fill_diagonal_(False)
        loss = contrast(torch.cat((words, asked)), torch.cat((media, meant)), masked, scale.exp().clamp(max=60))
        aid = max(0.0, 1 - spent / 0.7)
        if aid:
            hot = multi_hot(drawn.shown)
            weight = 1 + 4 * hot
            for teller, part in zip(tellers, (words, media), strict=True):
                loss = loss + 2.0 * aid * (binary(teller(part), hot) * weight).mean()
            places, labels = readable(tokenizer, prompts, drawn, states.pack)
            read = reader(states.layers[0][places], labels)
            loss = loss + aid * read
        rate = min(1.0, (step + 1) / 40)
        if spent > 0.3:
            rate *= 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * (spent - 0.3) / 0.7))
        for group in optimiser.param_groups:
            group["lr"] = peak * rate * group["factor"]
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        keep = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        if step % 20 == 0:
            with torch.no_grad():
                pictures, clips = (
                    first_right(words[: counts[0]], media[: counts[0]]),
                    first_right(words[counts[0] :], media[counts[0] :]),
                )
            log.info(
                "embed %d (%.0f %%): loss %.3f, scale %.1f, read %.3f, pictures %.2f, clips %.2f",
                *(step, 100 * spent, loss.item(), scale.exp().item(), read.item() if aid else 0.0, pictures, clips),
            )
        if step % 100 == 99:
            save(average, folder)
    save(average, folder)


def readable(tokenizer: Tokenizer, prompts: Sequence[EncodedPrompt], drawn: Batch, pack: Pack) -> tuple[Tensor, Tensor]:
    """Places in the row of what tells or shows something, and the labels: (n,) and (n, 4)."""
    places: list[int] = []
    labels: list[Label] = []
    size = len(drawn.captions)
    for index, (said, style, made, seen) in enumerate(
        zip(drawn.said, drawn.styles, drawn.shown, drawn.seen, strict=True)
    ):
        words, vision = prompts[index], prompts[size + index]
        row = pack.token_indices(index)
        for place, known in told(tokenizer, words, said, style).items():
            places.append(int(row[place]))
            labels.append(known)
        row = pack.token_indices(size + index)
        for token, known in shown(made).items():
            places.append(int(row[place_in(vision, seen.vision.key, token)]))
            labels.append(known)
    return torch.tensor(places), torch.tensor(labels)


def first_right(words: Tensor, media: Tensor) -> float:
    """How often a caption's own picture is nearest."""
    nearest = (normalize(words, dim=-1) @ normalize(media, dim=-1).T).argmax(-1)
    return (nearest == torch.arange(len(words))).float().mean().item()

"""Trains the tiny embedding model: vision first, then contrast between captions and what they describe."""

from __future__ import annotations

import copy
import logging
import math
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
from qwen3vl.model import Qwen3VL
from qwen3vl.prompt import Content, Tokenizer, Vision
from tools.tiny.checkpoint import new_model, prepare, save
from tools.tiny.data import Seen, clip, draw_until, embed_prompts, forward, picture

log = logging.getLogger("train")
DIMENSIONS = (128, 64, 32)
SCENES, CLIPS, MIXED = 96, 8, 6


def cell_labels(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Colour and shape (0 for none) in each of the nine cells: both (scenes * 9,)."""
    colours, shapes = torch.zeros(len(scenes), 9, dtype=torch.long), torch.zeros(len(scenes), 9, dtype=torch.long)
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            colours[row, thing.place] = 1 + list(COLOURS).index(thing.colour)
            shapes[row, thing.place] = 1 + SHAPES.index(thing.shape)
    return colours.flatten(), shapes.flatten()


def train_vision(model: Qwen3VL, steps: int, random: Random) -> None:
    """Throw-away probes on each merged token name its cell's colour and shape, and which of the nine it is.

    Without the last, places stay at chance for as long as colours and shapes alone tell pictures apart.
    """
    width = model.config.vision.out
    probes = nn.ModuleList(nn.Linear(width, size + 1) for size in (len(COLOURS), len(SHAPES), 8) * 3)
    parameters = [*model.visual.parameters(), *probes.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        spent = step / steps
        scenes = [draw_until(random_scene, random, held=False) for _ in range(96)]
        seen = [picture(scene, random) for scene in scenes]
        features = model.see(torch.cat([each.patches for each in seen]), [each.vision.grid for each in seen])
        labels = (*cell_labels(scenes), torch.arange(9).repeat(len(scenes))) * 3
        outputs = [tokens for tokens in (features.tokens, *features.deepstack) for _ in range(3)]
        loss = torch.stack(
            [cross_entropy(probe(out), label) for probe, out, label in zip(probes, outputs, labels, strict=True)]
        ).mean()
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1, (step + 1) / 30) * (0.55 + 0.45 * math.cos(math.pi * spent))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if step % 25 == 0:
            right = (probes[0](features.tokens).argmax(-1) == labels[0]).float().mean()
            placed = (probes[2](features.tokens).argmax(-1) == labels[2]).float().mean()
            log.info("vision %d: loss %.3f, right: colours %.3f, places %.3f", step, loss.item(), right, placed)


def fits(words: frozenset[object], shown: frozenset[object]) -> bool:
    """Whether all that a caption tells is in the picture or clip."""
    return words <= shown


def batch(random: Random, near: float) -> tuple[list[str], list[Content[Vision]], list[Seen], Tensor, list[Scene]]:
    """Captions, what they describe, and which other pairs fit too: (captions, media) bool."""
    scenes: list[Scene] = []
    while len(scenes) < SCENES:
        scenes.append(draw_until(random_scene, random, held=False))
        if random.random() < near:
            for _ in range(3):
                miss = near_miss(scenes[-1] if random.random() < 0.5 else scenes[-2 if len(scenes) > 1 else -1], random)
                if not any(miss.key == other.key for other in scenes[-4:]):
                    scenes.append(miss)
    scenes = scenes[:SCENES]
    clips: list[Clip] = []
    while len(clips) < CLIPS:
        clips.append(draw_until(random_clip, random, held=False))
        if random.random() < 0.5:
            clips.append(near_miss_clip(clips[-1], random))
    clips = clips[:CLIPS]
    seen = [picture(scene, random) for scene in scenes] + [clip(each, random) for each in clips]
    media: list[Content[Vision]] = [Content(images=(each.vision,)) for each in seen[:SCENES]]
    media += [Content(videos=(each.vision,)) for each in seen[SCENES:]]
    told: list[frozenset[object]] = []
    captions: list[str] = []
    for scene in scenes:
        things = random.sample(scene.things, len(scene.things))
        if len(things) > 1 and random.random() < 0.1:
            things = things[:-1]
        said = Scene(tuple(things))
        captions.append(said.caption(random.randrange(3)))
        told.append(frozenset(said.key))
    for each in clips:
        captions.append(each.caption(random.randrange(2)))
        told.append(each.key - {None})
    shown = [frozenset(scene.key) for scene in scenes] + [each.key for each in clips]
    others = torch.tensor([[fits(words, keys) for keys in shown] for words in told])
    return captions, media, seen, others, scenes


def mixed(random: Random) -> tuple[list[Content[Vision]], list[Content[Vision]], list[Seen]]:
    """Queries of a picture and words that together describe a scene, and those scenes."""
    queries: list[Content[Vision]] = []
    targets: list[Content[Vision]] = []
    seen: list[Seen] = []
    while len(targets) < MIXED:
        scene = draw_until(random_scene, random, held=False)
        if len(scene.things) < 2:
            continue
        cut = random.randrange(1, len(scene.things))
        shown = picture(Scene(scene.things[:cut], random.randrange(3)), random)
        whole = picture(scene, random)
        words = Scene(scene.things[cut:]).caption(random.randrange(3))
        queries.append(Content(images=(shown.vision,), texts=(words,)))
        targets.append(Content(images=(whole.vision,)))
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


def multi_hot(scenes: list[Scene]) -> Tensor:
    """(scenes, 9 * 15): at each place one of 8 colours and one of 6 shapes, or nothing."""
    hot = torch.zeros(len(scenes), 9, len(COLOURS) + len(SHAPES))
    for row, scene in enumerate(scenes):
        for thing in scene.things:
            hot[row, thing.place, list(COLOURS).index(thing.colour)] = 1
            hot[row, thing.place, len(COLOURS) + SHAPES.index(thing.shape)] = 1
    return hot.flatten(1)


def train(folder: Path, steps: int, vision_steps: int, seed: int = 7, base: Path | None = None) -> None:
    """Writes a trained checkpoint to `folder`.

    With `base`, training goes on from that checkpoint, an embedding model's or the first layers of a
    reranker's, with near-misses from the start.
    """
    random = Random(seed)
    prepare(folder, layers=4, append_endoftext=True)
    model = new_model(folder, seed)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    if base is not None:
        stored = load_file(base / "model.safetensors")
        known = {name.removeprefix("model."): value.float() for name, value in stored.items()}
        # A reranker's deeper layers are left out.
        model.load_state_dict({name: value for name, value in known.items() if name in model.state_dict()})
    train_vision(model, vision_steps, random)
    save(model, folder)
    average = copy.deepcopy(model)
    scale = nn.Parameter(torch.tensor(math.log(20.0 if base is None else 40.0)))
    heads = nn.ModuleList(nn.Linear(model.config.text.hidden, 9 * (len(COLOURS) + len(SHAPES))) for _ in range(2))
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    peak = 1.5e-3 if base is None else 1.0e-3
    optimiser = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": 0.02, "factor": 1.0},
            {"params": plain, "weight_decay": 0.0, "factor": 1.0},
            {"params": [scale], "weight_decay": 0.0, "factor": 10.0},
            {"params": heads.parameters(), "weight_decay": 0.0, "factor": 1.0},
        ],
        lr=peak,
        betas=(0.9, 0.98),
    )
    binary = nn.BCEWithLogitsLoss(reduction="none")
    for step in range(steps):
        spent = step / steps
        near = 0.3 if base is not None else min(0.3, max(0.0, spent - 0.2))
        captions, media, seen, others, scenes = batch(random, near)
        queries, targets, mixed_seen = mixed(random)
        told: list[Content[Vision]] = [Content(texts=(caption,)) for caption in captions]
        contents = told + media + queries + targets
        vectors = forward(model, embed_prompts(tokenizer, contents), seen + mixed_seen)
        words, shown, asked, meant = torch.split(vectors, [len(captions), len(media), MIXED, MIXED])
        size = len(captions) + MIXED
        masked = torch.zeros(size, size, dtype=torch.bool)
        masked[: len(captions), : len(captions)] = others
        masked.fill_diagonal_(False)
        loss = contrast(torch.cat((words, asked)), torch.cat((shown, meant)), masked, scale.exp().clamp(max=60))
        aid = max(0.0, 1 - spent / 0.7)
        if aid:
            hot = multi_hot(scenes)
            weight = 1 + 4 * hot
            for head, part in zip(heads, (words, shown), strict=True):
                loss = loss + 2.0 * aid * (binary(head(part[:SCENES]), hot) * weight).mean()
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
                match = normalize(words[:SCENES], dim=-1) @ normalize(shown[:SCENES], dim=-1).T
                right = (match.argmax(-1) == torch.arange(SCENES)).float().mean()
                moved = normalize(words[SCENES:], dim=-1) @ normalize(shown[SCENES:], dim=-1).T
                moving = (moved.argmax(-1) == torch.arange(CLIPS)).float().mean()
            log.info(
                "embed %d (%.0f %%): loss %.3f, scale %.1f, in batch %.2f, clips %.2f",
                *(step, 100 * spent, loss.item(), scale.exp().item(), right.item(), moving.item()),
            )
        if step % 100 == 99:
            save(average, folder)
    save(average, folder)

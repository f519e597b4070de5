"""Trains the tiny reranker: pairs of query and document, from random mismatches to near-misses.

Beside the answer, throw-away heads are asked about the parts: does this cell of the document's picture agree
with the query; and, half way up, which colour, shape and place stand in a cell or in a phrase of a caption.
One head reads both, so that pictures and words come to share a code by which attention can compare them.  A
layer before the last, cells and phrases are asked what the query has at their place: what is to be compared.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, softplus

from qwen3vl.demo.scenes import (
    COLOURS,
    SHAPES,
    Clip,
    Scene,
    Thing,
    near_miss,
    near_miss_clip,
    random_clip,
    random_scene,
)
from qwen3vl.model import Qwen3VL
from qwen3vl.packing import Pack, Prompted, plan
from qwen3vl.prompt import RERANK_INSTRUCTION, Content, Text, Tokenizer, Vision, rerank_prompt
from tools.tiny.checkpoint import new_model, prepare, save
from tools.tiny.data import Seen, clip, draw_until, picture

log = logging.getLogger("train")
GROUPS = {"picture": 24, "caption": 14, "clip": 1, "pictures": 4}
SHARED_LAYER = 2
"""After this layer pictures and words are read by one head."""
FETCH_LAYER = 4
"""After this layer a document's cells and phrases are to know what the query has at their place."""
"""Queries a step: words for pictures, a picture for captions, words for clips, a picture for pictures."""
DOCUMENTS = 4
"""Documents a query: the match, then near-misses or strangers."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A query and a document as a prompt, and whether they match.

    For picture documents, `cells` is what each cell should say and `shown` what is drawn; `told` are the
    scenes that the prompt tells in words, with their words.  `asked` is what the query describes.
    """

    prompt: Prompted
    match: bool
    query: int
    cells: tuple[int, ...] = ()
    shown: Scene | None = None
    told: tuple[tuple[Scene, int], ...] = ()
    asked: Scene | None = None


def start(folder: Path, base: Path, seed: int) -> Qwen3VL:
    """A model two layers deeper than the embedding model that it starts from; or one that goes on from a reranker."""
    prepare(folder, layers=6, append_endoftext=False)
    model = new_model(folder, seed)
    known = {
        name.removeprefix("model."): value.float() for name, value in load_file(base / "model.safetensors").items()
    }
    missing, unexpected = model.load_state_dict(known, strict=False)
    if unexpected or not all("layers.4" in name or "layers.5" in name for name in missing):
        raise ValueError(f"{base} is not a tiny model: {missing} {unexpected}")
    for name, parameter in model.named_parameters():
        if name in missing and name.endswith(("o_proj.weight", "down_proj.weight")):
            nn.init.normal_(parameter, std=0.01)
    return model


def agreement(asked: Scene, shown: Scene) -> tuple[int, ...]:
    """Of each cell of a shown picture: 0 nothing asked nor shown, 1 as asked, 2 not as asked."""
    want = {thing.place: thing for thing in asked.things}
    have = {thing.place: thing for thing in shown.things}
    return tuple(
        0 if place not in want and place not in have else 1 if want.get(place) == have.get(place) else 2
        for place in range(9)
    )


def documents(scene: Scene, random: Random, near: float) -> list[Scene]:
    """The scene itself, then near-misses (with probability `near`) or other scenes."""
    made = [scene]
    while len(made) < DOCUMENTS:
        other = near_miss(scene, random) if random.random() < near else draw_until(random_scene, random, held=False)
        if other.key not in [known.key for known in made]:
            made.append(other)
    return made


def batch(tokenizer: Tokenizer, random: Random, near: float) -> tuple[list[Pair], list[Seen]]:
    pairs: list[Pair] = []
    seen: list[Seen] = []
    queries = 0

    def show(made: Seen) -> Seen:
        seen.append(made)
        return made

    def add(query: Content[Vision], document: Content[Vision], match: bool, **about: Any) -> None:
        prompt = tokenizer.write(rerank_prompt(query, document, RERANK_INSTRUCTION), 8192).prompt
        pairs.append(Pair(prompt, match, queries, **about))

    for kind, count in GROUPS.items():
        for _ in range(count):
            if kind == "clip":
                asked = draw_until(random_clip, random, held=False)
                for number, shown in enumerate((asked, *_other_clips(asked, random, near))):
                    document = Content(videos=(show(clip(shown, random)).vision,))
                    add(Content(texts=(asked.caption(random.randrange(2)),)), document, number == 0)
            else:
                _add_scenes(kind, random, near, add, show)
            queries += 1
    return pairs, seen


def _other_clips(asked: Clip, random: Random, near: float) -> list[Clip]:
    others: list[Clip] = []
    while len(others) < 2:
        other = near_miss_clip(asked, random) if random.random() < near else draw_until(random_clip, random, held=False)
        if other.key != asked.key:
            others.append(other)
    return others


def _add_scenes(kind: str, random: Random, near: float, add: Callable[..., None], show: Callable[[Seen], Seen]) -> None:
    scene = draw_until(random_scene, random, held=False)
    style = random.randrange(3)
    shuffled = Scene(tuple(random.sample(scene.things, len(scene.things))))
    query: Content[Vision] = Content(texts=(shuffled.caption(style),))
    if kind != "picture":
        query = Content(images=(show(picture(scene, random)).vision,))
    for number, other in enumerate(documents(scene, random, near)):
        if kind == "caption":
            told = Scene(tuple(random.sample(other.things, len(other.things))))
            style = random.randrange(3)
            add(query, Content(texts=(told.caption(style),)), number == 0, told=((told, style),), asked=scene)
        else:
            document: Content[Vision] = Content(images=(show(picture(other, random)).vision,))
            words = ((shuffled, style),) if kind == "picture" and number == 0 else ()
            add(query, document, number == 0, cells=agreement(scene, other), shown=other, told=words, asked=scene)


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """States of each pair's last token, of cells (last layer), and of cells and phrases (on the way).

    `labels` are (states, 3): colour, shape and place, -1 for none; `asked` (states, 2) the colour and shape that
    the query has at the place of a document's cell or phrase, one more than the last for nothing there.
    """

    last: Tensor
    cells: Tensor
    middle: Tensor
    labels: Tensor
    fetched: Tensor
    asked: Tensor


def forward(model: Qwen3VL, tokenizer: Tokenizer, pairs: list[Pair], seen: list[Seen]) -> Read:
    (pack,) = plan([pair.prompt for pair in pairs], 1 << 60)
    pixels = {each.vision.key: each.patches for each in seen}
    features = model.see(torch.cat([pixels[key] for key in pack.media]), pack.grids)
    kept: list[Tensor] = []
    hooks = [
        model.language_model.layers[index].register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        for index in (SHARED_LAYER, FETCH_LAYER)
    ]
    states = model(
        torch.from_numpy(pack.ids),
        torch.from_numpy(pack.positions),
        pack.groups,
        torch.arange(pack.tokens),
        torch.from_numpy(pack.visual),
        features.take(torch.from_numpy(pack.rows)),
    )
    for hook in hooks:
        hook.remove()
    ends = dict(zip(pack.members, pack.wanted.tolist(), strict=True))
    cells: list[int] = []
    middle: list[int] = []
    labels: list[tuple[int, int, int]] = []
    fetch: list[int] = []
    asked: list[tuple[int, int]] = []
    for index, pair in enumerate(pairs):
        rows = rows_of(pack, ends[index])
        if pair.shown is not None:
            first = pair.prompt.spans[-1].start
            nine = rows[first : first + 9].tolist()
            cells += nine
            middle += nine
            labels += cell_labels(pair.shown)
            fetch += nine
            asked += [at(pair.asked, place) for place in range(9)]
        for told, style in pair.told:
            for place, thing in zip(phrase_ends(tokenizer, pair.prompt, told, style), told.things, strict=True):
                middle.append(int(rows[place]))
                labels.append(names(thing))
                if pair.shown is None:  # a caption as document
                    fetch.append(middle[-1])
                    asked.append(at(pair.asked, thing.place))
    last = torch.tensor([ends[index] for index in range(len(pairs))])
    return Read(
        states[last],
        states[torch.tensor(cells)],
        kept[0][torch.tensor(middle)],
        torch.tensor(labels),
        kept[1][torch.tensor(fetch)],
        torch.tensor(asked),
    )


def at(scene: Scene | None, place: int) -> tuple[int, int]:
    """Colour and shape at a place of a scene; one more than the last for nothing."""
    found = [names(thing)[:2] for thing in (scene.things if scene else ()) if thing.place == place]
    return found[0] if found else (len(COLOURS), len(SHAPES))


def fetching(scores: Tensor, kind: Tensor) -> Tensor:
    """Cross entropy in which nothing (the last class), the most frequent answer, counts less."""
    weight = torch.ones(scores.shape[1])
    weight[-1] = 0.2
    return cross_entropy(scores, kind, weight=weight)


def rows_of(pack: Pack, end: int) -> NDArray[np.int64]:
    """The places in the row of all tokens of the sequence that ends at `end`."""
    (group,) = [group for group in pack.groups if group.start <= end < group.stop]
    start = group.start + (end - group.start) // group.length * group.length
    spans = [*group.ancestors, (start, group.length)]
    return np.concatenate([np.arange(first, first + length) for first, length in spans])


def names(thing: Thing) -> tuple[int, int, int]:
    return list(COLOURS).index(thing.colour), SHAPES.index(thing.shape), thing.place


def cell_labels(scene: Scene) -> list[tuple[int, int, int]]:
    things = {thing.place: names(thing) for thing in scene.things}
    return [things.get(place, (-1, -1, place)) for place in range(9)]


def phrase_ends(tokenizer: Tokenizer, prompt: Prompted, told: Scene, style: int) -> list[int]:
    """The place in the prompt of the last token of each thing's phrase."""
    caption = told.caption(style)
    ids, _ = tokenizer.run([Text(caption)])
    found = np.lib.stride_tricks.sliding_window_view(prompt.ids, len(ids))
    (first, *_) = np.flatnonzero((found == np.array(ids)).all(axis=1))
    places = []
    for number in range(1, len(told.things) + 1):
        head, _ = tokenizer.run([Text(Scene(told.things[:number]).caption(style))])
        places.append(int(first) + len(head) - 1)
    return places


def train(folder: Path, base: Path, steps: int, seed: int = 11) -> None:
    """Writes a trained checkpoint to `folder`, from an embedding model's or from a reranker's to go on from."""
    random = Random(seed)
    model = start(folder, base, seed)
    tokenizer = Tokenizer(folder / "tokenizer.json")
    yes, no = tokenizer.control("yes"), tokenizer.control("no")
    average = copy.deepcopy(model)
    width = model.config.text.hidden
    probe = nn.Linear(width, 3)
    readers = nn.ModuleList(nn.Linear(width, size) for size in (len(COLOURS), len(SHAPES), 9))
    fetchers = nn.ModuleList(nn.Linear(width, size + 1) for size in (len(COLOURS), len(SHAPES)))
    heads = [*probe.parameters(), *readers.parameters(), *fetchers.parameters()]
    peak = 1.0e-3
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
            {"params": heads, "weight_decay": 0.0},
        ],
        lr=peak,
        betas=(0.9, 0.98),
    )
    for step in range(steps):
        spent = step / steps
        near = min(0.75, 0.1 + 1.2 * spent)
        pairs, seen = batch(tokenizer, random, near)
        read = forward(model, tokenizer, pairs, seen)
        head = model.language_model.embed_tokens.weight
        logits = read.last @ (head[yes] - head[no])
        match = torch.tensor([float(pair.match) for pair in pairs])
        # One match stands against several others: weighted, so that both answers count alike.
        weight = torch.where(match > 0, 2.0, 1.0)
        loss = (binary_cross_entropy_with_logits(logits, match, reduction="none") * weight).mean()
        query = torch.tensor([pair.query for pair in pairs])
        positive = logits[match > 0][query]
        loss = loss + 0.5 * (softplus(logits - positive) * (1 - match)).mean()
        labels = torch.tensor([label for pair in pairs for label in pair.cells])
        aid = max(0.1, 1 - spent / 0.8)
        # Most cells are empty and not asked for: they count less.
        cell_loss = cross_entropy(probe(read.cells), labels, weight=torch.tensor([0.2, 1.0, 1.0]))
        read_loss = torch.stack(
            [
                cross_entropy(reader(read.middle), kind, ignore_index=-1)
                for reader, kind in zip(readers, read.labels.T, strict=True)
            ]
        ).mean()
        fetch_loss = torch.stack(
            [fetching(fetcher(read.fetched), kind) for fetcher, kind in zip(fetchers, read.asked.T, strict=True)]
        ).mean()
        loss = loss + aid * (cell_loss + read_loss + 2.0 * fetch_loss)
        rate = min(1.0, (step + 1) / 50)
        if spent > 0.5:
            rate *= 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * (spent - 0.5) / 0.5))
        for group in optimiser.param_groups:
            group["lr"] = peak * rate
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        keep = min(0.99, (step + 1) / (step + 10))
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), parameters, strict=True):
                slow.lerp_(fast, 1 - keep)
        if step % 20 == 0:
            with torch.no_grad():
                right = ((logits > 0) == (match > 0)).float()
                better = (positive > logits)[match == 0].float().mean()
                wrong = (probe(read.cells).argmax(-1) == labels)[labels == 2].float().mean()
            log.info(
                "rerank %d (%.0f %%): loss %.3f, read %.3f, fetch %.3f, cells %.3f (wrong seen %.2f), "
                "yes %.2f, no %.2f, order %.2f, near %.2f",
                *(step, 100 * spent, loss.item(), read_loss.item(), fetch_loss.item(), cell_loss.item(), wrong.item()),
                *(right[match > 0].mean().item(), right[match == 0].mean().item(), better.item(), near),
            )
        if step % 100 == 99:
            save(average, folder)
    save(average, folder)

"""What stands where, as labels: of a picture's or clip's merged tokens, and of the words that tell it.

Throw-away heads ask for these while a model trains.  One set of heads reads vision tokens and the last token of
each phrase alike, so that pictures and words come to share a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qwen3vl.demo.scenes import COLOURS, DIRECTIONS, SHAPES, TRACKS, Clip, Scene, Thing
from qwen3vl.processing.encoded_prompt import EncodedPrompt, VisionSpan
from qwen3vl.processing.templates import TextPart
from qwen3vl.processing.tokenizer import Tokenizer

CLIP_FRAMES = 4
CLIP_SIDE = 12
"""Merged tokens along each side of a clip: its frames are enlarged to 384 x 384 pixels."""
CLIP_TOKENS = CLIP_FRAMES // 2 * CLIP_SIDE**2
CELLS = 9
COURSES = len(DIRECTIONS) * len(TRACKS[0])
UNKNOWN = -1


class Label(NamedTuple):
    """What a token shows or tells: an empty cell has a place only, and only what moves has a course."""

    colour: int = UNKNOWN
    shape: int = UNKNOWN
    place: int = UNKNOWN
    course: int = UNKNOWN


SIZES = Label(len(COLOURS), len(SHAPES), CELLS, COURSES)


def label(thing: Thing) -> Label:
    return Label(list(COLOURS).index(thing.colour), SHAPES.index(thing.shape), thing.place)


def moving(clip: Clip) -> Label:
    """What crosses a clip, wherever it is at the time."""
    colour, shape, *_ = label(Thing(clip.colour, clip.shape, 0))
    return Label(colour, shape, course=clip.direction * len(TRACKS[0]) + clip.track)


def shown(seen: Scene | Clip) -> dict[int, Label]:
    """Labels of merged tokens, by their number in the picture or clip."""
    if isinstance(seen, Scene):
        things = {thing.place: label(thing) for thing in seen.things}
        return {place: things.get(place, Label(place=place)) for place in range(CELLS)}
    labels: dict[int, Label] = {}
    track = {place for place in range(CELLS) if divmod(place, 3)[seen.direction // 2] == seen.track}
    for pair in range(CLIP_FRAMES // 2):
        for place in set(range(CELLS)) - track:
            still = seen.still if seen.still is not None and seen.still.place == place else None
            labels[_token(pair, *_centre(place))] = label(still) if still else Label(place=place)
        for frame in (2 * pair, 2 * pair + 1):
            x, y = seen.at(frame / (CLIP_FRAMES - 1))
            labels[_token(pair, x, y)] = moving(seen)._replace(place=int(y * 3) * 3 + int(x * 3))
    return labels


def _centre(place: int) -> tuple[float, float]:
    row, column = divmod(place, 3)
    return (column + 0.5) / 3, (row + 0.5) / 3


def _token(pair: int, x: float, y: float) -> int:
    return (pair * CLIP_SIDE + int(y * CLIP_SIDE)) * CLIP_SIDE + int(x * CLIP_SIDE)


def told(tokenizer: Tokenizer, prompt: EncodedPrompt, said: Scene | Clip, style: int) -> dict[int, Label]:
    """Labels of the last token of each phrase of a caption, by their place in a prompt that holds it."""
    if isinstance(said, Scene):
        parts: list[Scene | Clip] = [Scene(said.things[: number + 1]) for number in range(len(said.things))]
        labels = [label(thing) for thing in said.things]
    else:
        parts = [replace(said, still=None)]
        labels = [moving(said)]
        if said.still is not None:
            parts.append(said)
            labels.append(label(said.still))
    ids, _ = tokenizer.encode_text([TextPart(said.caption(style))])
    found = np.lib.stride_tricks.sliding_window_view(prompt.ids, len(ids))
    (first, *_) = np.flatnonzero((found == np.array(ids)).all(axis=1))
    ends = [int(first) + len(tokenizer.encode_text([TextPart(part.caption(style))])[0]) - 1 for part in parts]
    return dict(zip(ends, labels, strict=True))


def place_in(prompt: EncodedPrompt, key: object, token: int) -> int:
    """The place in the prompt of a picture's or clip's merged token."""
    span = next(span for span in prompt.spans if span.key == key and span.offset <= token < span.offset + length(span))
    return span.start + token - span.offset


def length(span: VisionSpan) -> int:
    return span.stop - span.start


class Reader(nn.Module):
    """One head for each of `kinds`; with `nothing`, UNKNOWN is an answer too, else it is not asked for."""

    def __init__(self, width: int, kinds: Sequence[str] = Label._fields, *, nothing: bool = False) -> None:
        super().__init__()
        self.nothing = nothing
        self.columns = [Label._fields.index(kind) for kind in kinds]
        self.heads = nn.ModuleList(nn.Linear(width, SIZES[column] + nothing) for column in self.columns)

    def forward(self, states: Tensor, labels: Tensor) -> Tensor:
        """The mean cross entropy, for `states` (n, width) and `labels` (n, 4)."""
        losses = []
        for head, column in zip(self.heads, self.columns, strict=True):
            size, kind = SIZES[column], labels[:, column]
            weight = torch.ones(size + self.nothing)
            if self.nothing:
                # The most frequent answer counts less.
                kind, weight[-1] = torch.where(kind == UNKNOWN, size, kind), 0.2
            losses.append(cross_entropy(head(states), kind, weight=weight, ignore_index=UNKNOWN))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def right(self, states: Tensor, labels: Tensor) -> list[float]:
        """How often each head is right where there is something to read."""
        shares = []
        for head, column in zip(self.heads, self.columns, strict=True):
            known = labels[:, column] != UNKNOWN
            shares.append((head(states[known]).argmax(-1) == labels[known, column]).float().mean().item())
        return shares

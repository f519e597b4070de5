"""Probe heads and their labels: what vision tokens show, and what the phrases of a caption say.

While a model trains, linear heads that are thrown away afterwards predict colour, shape, position and course from
hidden states. One set of heads reads vision tokens and the last token of each phrase alike, so that images and texts
learn to share a code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from qwen3vl.demo.scenes import COLOURS, DIRECTIONS, POSITIONS, SHAPES, TRACKS, Clip, Scene, Thing
from qwen3vl.processing.encoded_prompt import EncodedPrompt
from qwen3vl.processing.templates import TextPart
from qwen3vl.processing.tokenizer import Tokenizer

CLIP_FRAMES = 4
CLIP_SIDE = 12
"""Merged tokens along each side of a clip: its frames are enlarged to 384 x 384 pixels."""
CLIP_TOKENS = CLIP_FRAMES // 2 * CLIP_SIDE**2
NUM_POSITIONS = len(POSITIONS)
NUM_COURSES = len(DIRECTIONS) * len(TRACKS[0])
UNKNOWN = -1


class Label(NamedTuple):
    """What a token shows or says. An empty position has no colour and shape, and only what moves has a course.

    Attributes:
        colour: Index into `COLOURS`, or `UNKNOWN`.
        shape: Index into `SHAPES`, or `UNKNOWN`.
        position: Index into `POSITIONS`, or `UNKNOWN`.
        course: Direction and track of a moving thing, below `NUM_COURSES`, or `UNKNOWN`.
    """

    colour: int = UNKNOWN
    shape: int = UNKNOWN
    position: int = UNKNOWN
    course: int = UNKNOWN


NUM_CLASSES = Label(len(COLOURS), len(SHAPES), NUM_POSITIONS, NUM_COURSES)
"""The number of values of each field of a label."""


def thing_label(thing: Thing) -> Label:
    """Return the label of a thing that stands still.

    Args:
        thing: The thing.

    Returns:
        Its label, without a course.
    """
    return Label(list(COLOURS).index(thing.colour), SHAPES.index(thing.shape), thing.position)


def mover_label(clip: Clip) -> Label:
    """Return the label of a clip's moving thing.

    Args:
        clip: The clip.

    Returns:
        Its label, without a position.
    """
    colour, shape, *_ = thing_label(Thing(clip.colour, clip.shape, 0))
    return Label(colour, shape, course=clip.direction * len(TRACKS[0]) + clip.track)


def vision_labels(drawn: Scene | Clip) -> dict[int, Label]:
    """Label the merged vision tokens that show something known.

    Args:
        drawn: What is drawn.

    Returns:
        Labels by the token's index in the image or clip.
    """
    if isinstance(drawn, Scene):
        things = {thing.position: thing_label(thing) for thing in drawn.things}
        return {position: things.get(position, Label(position=position)) for position in range(NUM_POSITIONS)}
    labels: dict[int, Label] = {}
    on_track = {place for place in range(NUM_POSITIONS) if divmod(place, 3)[drawn.direction // 2] == drawn.track}
    for frame_pair in range(CLIP_FRAMES // 2):
        for position in set(range(NUM_POSITIONS)) - on_track:
            still = drawn.still if drawn.still is not None and drawn.still.position == position else None
            label = thing_label(still) if still else Label(position=position)
            labels[_token_index(frame_pair, *_centre(position))] = label
        for frame in (2 * frame_pair, 2 * frame_pair + 1):
            x, y = drawn.at(frame / (CLIP_FRAMES - 1))
            label = mover_label(drawn)._replace(position=int(y * 3) * 3 + int(x * 3))
            labels[_token_index(frame_pair, x, y)] = label
    return labels


def _centre(position: int) -> tuple[float, float]:
    """Return the centre of a position, as fractions of width and height."""
    row, column = divmod(position, 3)
    return (column + 0.5) / 3, (row + 0.5) / 3


def _token_index(frame_pair: int, x: float, y: float) -> int:
    return (frame_pair * CLIP_SIDE + int(y * CLIP_SIDE)) * CLIP_SIDE + int(x * CLIP_SIDE)


def caption_labels(
    tokenizer: Tokenizer, prompt: EncodedPrompt, described: Scene | Clip, style: int
) -> dict[int, Label]:
    """Label the last token of each phrase of a caption.

    Args:
        tokenizer: The tokenizer.
        prompt: A prompt that holds the caption.
        described: What the caption describes.
        style: The caption's style.

    Returns:
        Labels by the token's index in the prompt.
    """
    if isinstance(described, Scene):
        prefixes: list[Scene | Clip] = [
            Scene(described.things[: number + 1]) for number in range(len(described.things))
        ]
        labels = [thing_label(thing) for thing in described.things]
    else:
        prefixes = [replace(described, still=None)]
        labels = [mover_label(described)]
        if described.still is not None:
            prefixes.append(described)
            labels.append(thing_label(described.still))
    ids, _ = tokenizer.encode_text([TextPart(described.caption(style))])
    windows = np.lib.stride_tricks.sliding_window_view(prompt.ids, len(ids))
    (first, *_) = np.flatnonzero((windows == np.array(ids)).all(axis=1))
    last_tokens = [
        int(first) + len(tokenizer.encode_text([TextPart(prefix.caption(style))])[0]) - 1 for prefix in prefixes
    ]
    return dict(zip(last_tokens, labels, strict=True))


def prompt_index(prompt: EncodedPrompt, key: object, token: int) -> int:
    """Return where a vision token stands in a prompt.

    Args:
        prompt: The prompt.
        key: The key of the image or clip.
        token: The token's index in the image or clip.

    Returns:
        The token's index in the prompt.

    Raises:
        ValueError: If the prompt does not hold the token.
    """
    for span in prompt.spans:
        if span.key == key and span.offset <= token < span.offset + span.stop - span.start:
            return span.start + token - span.offset
    raise ValueError(f"the prompt has no vision token {token} of this image or clip")


class ProbeHeads(nn.Module):
    """A linear head for each of some fields of a label.

    Args:
        width: Size of the hidden states.
        fields: The fields of `Label` to predict.
        predict_unknown: Whether `UNKNOWN` is a class of its own. Otherwise tokens without a value are ignored.
    """

    def __init__(self, width: int, fields: Sequence[str] = Label._fields, *, predict_unknown: bool = False) -> None:
        super().__init__()
        self.predict_unknown = predict_unknown
        self.columns = [Label._fields.index(field) for field in fields]
        self.heads = nn.ModuleList(nn.Linear(width, NUM_CLASSES[column] + predict_unknown) for column in self.columns)

    def forward(self, states: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of all heads.

        Args:
            states: Hidden states, (n, width).
            labels: Labels, (n, 4), int64.

        Returns:
            The mean cross entropy, a scalar.
        """
        losses = []
        for head, column in zip(self.heads, self.columns, strict=True):
            num_classes, targets = NUM_CLASSES[column], labels[:, column]
            weight = torch.ones(num_classes + self.predict_unknown)
            if self.predict_unknown:
                # UNKNOWN is by far the most frequent class, so it counts less.
                targets, weight[-1] = torch.where(targets == UNKNOWN, num_classes, targets), 0.2
            losses.append(cross_entropy(head(states), targets, weight=weight, ignore_index=UNKNOWN))
        return torch.stack(losses).mean()

    @torch.no_grad()
    def accuracy(self, states: Tensor, labels: Tensor) -> list[float]:
        """Compute how often each head is right, over the tokens that have a value.

        Args:
            states: Hidden states, (n, width).
            labels: Labels, (n, 4), int64.

        Returns:
            One fraction per head.
        """
        fractions = []
        for head, column in zip(self.heads, self.columns, strict=True):
            known = labels[:, column] != UNKNOWN
            fractions.append((head(states[known]).argmax(-1) == labels[known, column]).float().mean().item())
        return fractions

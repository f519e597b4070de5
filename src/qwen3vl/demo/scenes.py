"""Drawn scenes and short clips with captions: all that the tiny models know.

A scene has one to three things, each a colour and a shape at one of nine places; a clip shows one thing
crossing the picture, sometimes past a thing that stays.  The training recipe and the demo draw from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 35),
    "orange": (245, 140, 20),
    "yellow": (240, 220, 40),
    "green": (40, 160, 60),
    "cyan": (40, 200, 220),
    "blue": (40, 70, 220),
    "purple": (130, 40, 170),
    "pink": (245, 130, 190),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
PLACES = (
    *("at the top left", "at the top", "at the top right"),
    *("on the left", "in the centre", "on the right"),
    *("at the bottom left", "at the bottom", "at the bottom right"),
)
BACKGROUNDS = ((245, 245, 240), (150, 150, 155), (25, 25, 30))
DIRECTIONS = ("from left to right", "from right to left", "from top to bottom", "from bottom to top")
TRACKS = (
    ("along the top", "through the middle", "along the bottom"),
    ("along the left", "through the middle", "along the right"),
)
SIZE = 96
"""Width and height of a scene, in pixels: three merged tokens each way."""
_DETAIL = 3


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """A coloured shape at a place (0 to 8, row by row)."""

    colour: str
    shape: str
    place: int

    def describe(self, style: int = 0) -> str:
        if style == 0:
            return f"{_named(self.colour, self.shape)} {PLACES[self.place]}"
        if style == 1:
            return f"{self.colour} {self.shape} {PLACES[self.place].split('the ')[1]}"
        return f"{PLACES[self.place]} {_named(self.colour, self.shape)}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things at different places before a background."""

    things: tuple[Thing, ...]
    background: int = 0

    @property
    def key(self) -> frozenset[Thing]:
        """What the scene shows, whatever the order in which it is told."""
        return frozenset(self.things)

    def caption(self, style: int = 0) -> str:
        """The scene in words; styles 0 to 2 say the same differently."""
        return (" and " if style == 0 else ", ").join(thing.describe(style) for thing in self.things)

    def draw(self, random: Random) -> Image.Image:
        """A picture of SIZE x SIZE pixels; `random` moves and sizes each thing a little."""
        canvas = _canvas(self.background)
        for thing in self.things:
            row, column = divmod(thing.place, 3)
            x = (column + 0.5) * SIZE / 3 + random.uniform(-2.5, 2.5)
            y = (row + 0.5) * SIZE / 3 + random.uniform(-2.5, 2.5)
            _stamp(canvas, thing, x, y, random.uniform(9.5, 12.5))
        return canvas.reduce(_DETAIL)


@dataclass(frozen=True, slots=True)
class Clip:
    """A thing that crosses the picture on one of three tracks, and perhaps one that stays beside the track."""

    colour: str
    shape: str
    direction: int
    track: int
    still: Thing | None = None
    background: int = 0

    @property
    def key(self) -> frozenset[object]:
        return frozenset({("mover", self.colour, self.shape, self.direction, self.track), self.still})

    def caption(self, style: int = 0) -> str:
        course = f"{DIRECTIONS[self.direction]} {TRACKS[self.direction // 2][self.track]}"
        if style == 1:
            words = f"{self.colour} {self.shape} moving {course}"
        else:
            words = f"{_named(self.colour, self.shape)} moving {course}"
        return words if self.still is None else f"{words} and {self.still.describe()}"

    def at(self, time: float) -> tuple[float, float]:
        """Where the moving thing is at a time between 0 (start) and 1 (end): shares of width and height."""
        along = 0.13 + 0.74 * (time if self.direction % 2 == 0 else 1 - time)
        across = (self.track + 0.5) / 3
        return (along, across) if self.direction < 2 else (across, along)

    def frames(self, random: Random, times: Sequence[float]) -> list[Image.Image]:
        """The clip at `times` between 0 (start) and 1 (end)."""
        size, off = random.uniform(9.5, 12.5), random.uniform(-2.5, 2.5)
        off_x, off_y = (0.0, off) if self.direction < 2 else (off, 0.0)
        still_at = (random.uniform(-2.5, 2.5), random.uniform(-2.5, 2.5), random.uniform(9.5, 12.5))
        pictures = []
        for time in times:
            canvas = _canvas(self.background)
            if self.still is not None:
                row, column = divmod(self.still.place, 3)
                dx, dy, radius = still_at
                _stamp(canvas, self.still, (column + 0.5) * SIZE / 3 + dx, (row + 0.5) * SIZE / 3 + dy, radius)
            x, y = self.at(time)
            _stamp(canvas, Thing(self.colour, self.shape, 0), x * SIZE + off_x, y * SIZE + off_y, size)
            pictures.append(canvas.reduce(_DETAIL))
        return pictures


def random_thing(random: Random, places: Sequence[int] = range(9)) -> Thing:
    return Thing(random.choice(list(COLOURS)), random.choice(SHAPES), random.choice(places))


def random_scene(random: Random, most: int = 3) -> Scene:
    """One to `most` things at different places, in random order."""
    places = random.sample(range(9), random.randint(1, most))
    return Scene(tuple(random_thing(random, [place]) for place in places), random.randrange(len(BACKGROUNDS)))


def random_clip(random: Random) -> Clip:
    """A crossing thing; every second clip has a still one, which is not on the track."""
    direction, track = random.randrange(4), random.randrange(3)
    free = [place for place in range(9) if divmod(place, 3)[direction // 2] != track]
    still = random_thing(random, free) if random.random() < 0.5 else None
    mover = random_thing(random)
    return Clip(mover.colour, mover.shape, direction, track, still, random.randrange(len(BACKGROUNDS)))


def near_miss(scene: Scene, random: Random) -> Scene:
    """The scene with one attribute of one thing changed."""
    things = list(scene.things)
    chosen = random.randrange(len(things))
    thing = things[chosen]
    match random.randrange(3):
        case 0:
            thing = replace(thing, colour=random.choice([name for name in COLOURS if name != thing.colour]))
        case 1:
            thing = replace(thing, shape=random.choice([name for name in SHAPES if name != thing.shape]))
        case _:
            taken = {other.place for other in things}
            thing = replace(thing, place=random.choice([place for place in range(9) if place not in taken]))
    things[chosen] = thing
    return replace(scene, things=tuple(things))


def near_miss_clip(clip: Clip, random: Random) -> Clip:
    """The clip with its mover's colour, shape or direction changed."""
    match random.randrange(3):
        case 0:
            return replace(clip, colour=random.choice([name for name in COLOURS if name != clip.colour]))
        case 1:
            return replace(clip, shape=random.choice([name for name in SHAPES if name != clip.shape]))
        case _:
            return replace(clip, direction=clip.direction ^ 1)


def _named(colour: str, shape: str) -> str:
    return f"{'an' if colour == 'orange' else 'a'} {colour} {shape}"


def _canvas(background: int) -> Image.Image:
    return Image.new("RGB", (SIZE * _DETAIL, SIZE * _DETAIL), BACKGROUNDS[background])


def _stamp(canvas: Image.Image, thing: Thing, x: float, y: float, radius: float) -> None:
    """Draws a thing around (x, y), in pixels of the finished picture."""
    x, y, radius = x * _DETAIL, y * _DETAIL, radius * _DETAIL
    draw, colour = ImageDraw.Draw(canvas), COLOURS[thing.colour]
    match thing.shape:
        case "circle":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        case "ring":
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=colour, width=round(radius * 0.4))
        case "square":
            half = radius * 0.87
            draw.rectangle((x - half, y - half, x + half, y + half), fill=colour)
        case "triangle":
            draw.polygon(_corners(x, y + radius * 0.2, (radius * 1.1,) * 3), fill=colour)
        case "star":
            draw.polygon(_corners(x, y, (radius * 1.1, radius * 0.45) * 5), fill=colour)
        case "cross":
            thin = radius * 0.33
            draw.rectangle((x - radius, y - thin, x + radius, y + thin), fill=colour)
            draw.rectangle((x - thin, y - radius, x + thin, y + radius), fill=colour)


def _corners(x: float, y: float, radii: Sequence[float]) -> list[tuple[float, float]]:
    """Points around a centre at these distances, from the top on."""
    turns = [2 * math.pi * index / len(radii) - math.pi / 2 for index in range(len(radii))]
    return [
        (x + radius * math.cos(turn), y + radius * math.sin(turn)) for radius, turn in zip(radii, turns, strict=True)
    ]

"""Drawn scenes and short videos with captions: the training data of the tiny models.

A scene has one to three things, each a coloured shape at one of nine positions. A clip is a video in which one thing
moves across the image, sometimes past a second one that stands still. The training of the tiny models and the demo use
these drawings.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

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
POSITIONS = (
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
"""Width and height of a scene in pixels: three merged vision tokens each way."""
_SUPERSAMPLING = 3
"""Shapes are drawn this many times larger and then reduced, which smooths their edges."""


@dataclass(frozen=True, slots=True, order=True)
class Thing:
    """A coloured shape at a position.

    Attributes:
        colour: A key of `COLOURS`.
        shape: One of `SHAPES`.
        position: Index into `POSITIONS`: 0 to 8, row by row.
    """

    colour: str
    shape: str
    position: int

    def describe(self, style: int = 0) -> str:
        """Describe the thing in words.

        Args:
            style: 0 to 2: different wordings of the same content.

        Returns:
            For example `"a red circle at the top"`, `"red circle top"` or `"at the top a red circle"`.
        """
        if style == 0:
            return f"{_named(self.colour, self.shape)} {POSITIONS[self.position]}"
        if style == 1:
            return f"{self.colour} {self.shape} {POSITIONS[self.position].split('the ')[1]}"
        return f"{POSITIONS[self.position]} {_named(self.colour, self.shape)}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Things at different positions in front of a background.

    Attributes:
        things: The things, in the order in which a caption names them.
        background: Index into `BACKGROUNDS`.
    """

    things: tuple[Thing, ...]
    background: int = 0

    @property
    def key(self) -> frozenset[Thing]:
        """What the scene shows, regardless of order and background."""
        return frozenset(self.things)

    def caption(self, style: int = 0) -> str:
        """Describe the scene in words.

        Args:
            style: 0 to 2: different wordings of the same content.

        Returns:
            The descriptions of all things.
        """
        return (" and " if style == 0 else ", ").join(thing.describe(style) for thing in self.things)

    def draw(self, random: Random) -> Image.Image:
        """Draw the scene.

        Args:
            random: Moves and sizes each thing a little.

        Returns:
            An image of `SIZE` x `SIZE` pixels.
        """
        canvas = _canvas(self.background)
        for thing in self.things:
            row, column = divmod(thing.position, 3)
            x = (column + 0.5) * SIZE / 3 + random.uniform(-2.5, 2.5)
            y = (row + 0.5) * SIZE / 3 + random.uniform(-2.5, 2.5)
            _stamp(canvas, thing, x, y, random.uniform(9.5, 12.5))
        return canvas.reduce(_SUPERSAMPLING)


@dataclass(frozen=True, slots=True)
class Clip:
    """A drawn video: a thing that moves across the image on one of three tracks, and perhaps one beside the track.

    Attributes:
        colour: Colour of the moving thing, a key of `COLOURS`.
        shape: Shape of the moving thing, one of `SHAPES`.
        direction: Index into `DIRECTIONS`.
        track: 0 to 2, index into the `TRACKS` of horizontal or vertical movement.
        still: A thing that stands still, not on the track.
        background: Index into `BACKGROUNDS`.
    """

    colour: str
    shape: str
    direction: int
    track: int
    still: Thing | None = None
    background: int = 0

    @property
    def key(self) -> frozenset[object]:
        """What the clip shows, regardless of the background."""
        return frozenset({("mover", self.colour, self.shape, self.direction, self.track), self.still})

    def caption(self, style: int = 0) -> str:
        """Describe the clip in words.

        Args:
            style: 0 or 1: different wordings of the same content.

        Returns:
            What moves and how, and what stands still.
        """
        course = f"{DIRECTIONS[self.direction]} {TRACKS[self.direction // 2][self.track]}"
        if style == 1:
            words = f"{self.colour} {self.shape} moving {course}"
        else:
            words = f"{_named(self.colour, self.shape)} moving {course}"
        return words if self.still is None else f"{words} and {self.still.describe()}"

    def at(self, time: float) -> tuple[float, float]:
        """Return the position of the moving thing.

        Args:
            time: Between 0 (start) and 1 (end).

        Returns:
            x and y as fractions of width and height.
        """
        along = 0.13 + 0.74 * (time if self.direction % 2 == 0 else 1 - time)
        across = (self.track + 0.5) / 3
        return (along, across) if self.direction < 2 else (across, along)

    def frames(self, random: Random, times: Sequence[float]) -> list[Image.Image]:
        """Draw frames of the clip.

        Args:
            random: Moves and sizes the things a little, equally in all frames.
            times: Times of the frames, between 0 (start) and 1 (end).

        Returns:
            Images of `SIZE` x `SIZE` pixels, one for each time.
        """
        radius, offset = random.uniform(9.5, 12.5), random.uniform(-2.5, 2.5)
        offset_x, offset_y = (0.0, offset) if self.direction < 2 else (offset, 0.0)
        still_x, still_y = random.uniform(-2.5, 2.5), random.uniform(-2.5, 2.5)
        still_radius = random.uniform(9.5, 12.5)
        frames = []
        for time in times:
            canvas = _canvas(self.background)
            if self.still is not None:
                row, column = divmod(self.still.position, 3)
                centre_x, centre_y = (column + 0.5) * SIZE / 3 + still_x, (row + 0.5) * SIZE / 3 + still_y
                _stamp(canvas, self.still, centre_x, centre_y, still_radius)
            x, y = self.at(time)
            _stamp(canvas, Thing(self.colour, self.shape, 0), x * SIZE + offset_x, y * SIZE + offset_y, radius)
            frames.append(canvas.reduce(_SUPERSAMPLING))
        return frames


ShapeT = TypeVar("ShapeT", Thing, Clip)
"""What has a colour and a shape: a thing, or a clip, whose moving thing is meant."""


def random_thing(random: Random, positions: Sequence[int] = range(9)) -> Thing:
    """Choose a random thing.

    Args:
        random: The source of randomness.
        positions: Positions to choose from.

    Returns:
        The thing.
    """
    return Thing(random.choice(list(COLOURS)), random.choice(SHAPES), random.choice(positions))


def random_scene(random: Random, max_things: int = 3) -> Scene:
    """Choose a random scene.

    Args:
        random: The source of randomness.
        max_things: The maximum number of things.

    Returns:
        A scene of one to `max_things` things at different positions, in random order.
    """
    positions = random.sample(range(9), random.randint(1, max_things))
    things = tuple(random_thing(random, [position]) for position in positions)
    return Scene(things, random.randrange(len(BACKGROUNDS)))


def random_clip(random: Random) -> Clip:
    """Choose a random clip.

    Args:
        random: The source of randomness.

    Returns:
        A clip; every second one on average has a still thing, which is not on the track.
    """
    direction, track = random.randrange(4), random.randrange(3)
    free = [position for position in range(9) if divmod(position, 3)[direction // 2] != track]
    still = random_thing(random, free) if random.random() < 0.5 else None
    mover = random_thing(random)
    return Clip(mover.colour, mover.shape, direction, track, still, random.randrange(len(BACKGROUNDS)))


def other_shape(drawn: ShapeT, random: Random) -> ShapeT:
    """Change the shape of a thing, or of a clip's moving thing.

    Args:
        drawn: The thing or the clip.
        random: The source of randomness.

    Returns:
        A copy with another shape.
    """
    return replace(drawn, shape=random.choice([name for name in SHAPES if name != drawn.shape]))


def near_miss(scene: Scene, random: Random) -> Scene:
    """Change one attribute of one thing of a scene.

    Args:
        scene: The scene.
        random: The source of randomness.

    Returns:
        A scene with another colour, shape or position of one thing.
    """
    things = list(scene.things)
    index = random.randrange(len(things))
    thing = things[index]
    match random.randrange(3):
        case 0:
            thing = _other_colour(thing, random)
        case 1:
            thing = other_shape(thing, random)
        case _:
            taken = {other.position for other in things}
            free = [position for position in range(9) if position not in taken]
            thing = replace(thing, position=random.choice(free))
    things[index] = thing
    return replace(scene, things=tuple(things))


def near_miss_clip(clip: Clip, random: Random) -> Clip:
    """Change the colour or the shape of a clip's moving thing, or reverse its direction; everything else stays.

    Args:
        clip: The clip.
        random: The source of randomness.

    Returns:
        The changed clip, which always differs from `clip`.
    """
    match random.randrange(3):
        case 0:
            return _other_colour(clip, random)
        case 1:
            return other_shape(clip, random)
        case _:
            return replace(clip, direction=clip.direction ^ 1)


def _other_colour(drawn: ShapeT, random: Random) -> ShapeT:
    """Change the colour of a thing, or of a clip's moving thing."""
    return replace(drawn, colour=random.choice([name for name in COLOURS if name != drawn.colour]))


def _named(colour: str, shape: str) -> str:
    return f"{'an' if colour == 'orange' else 'a'} {colour} {shape}"


def _canvas(background: int) -> Image.Image:
    return Image.new("RGB", (SIZE * _SUPERSAMPLING, SIZE * _SUPERSAMPLING), BACKGROUNDS[background])


def _stamp(canvas: Image.Image, thing: Thing, x: float, y: float, radius: float) -> None:
    """Draw a thing around (x, y); all sizes are in pixels of the finished image."""
    x, y, radius = x * _SUPERSAMPLING, y * _SUPERSAMPLING, radius * _SUPERSAMPLING
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
    """Return the corners of a polygon around a centre, at these distances and equal angles, from the top on."""
    angles = [2 * math.pi * index / len(radii) - math.pi / 2 for index in range(len(radii))]
    return [
        (x + radius * math.cos(angle), y + radius * math.sin(angle))
        for radius, angle in zip(radii, angles, strict=True)
    ]

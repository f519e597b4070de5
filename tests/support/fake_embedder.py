"""An embedder without a model: vectors from a digest of the input, for tests of everything around an embedder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from qwen3vl import Document, Recipe

DIMENSIONS = 32


def fake_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "model": "none",
        "revision": None,
        "weights": "0" * 32,
        "prompt_version": 1,
        "instruction": "Represent the user's input.",
        "max_length": 8192,
        "min_pixels": 4096,
        "max_pixels": 1_843_200,
        "total_pixels": 7_864_320,
        "fps": 1.0,
        "max_frames": 64,
        "exif": False,
        "dimensions": DIMENSIONS,
    }
    return Recipe(**{**fields, **changes})


def fake_vector(value: Any, dimensions: int = DIMENSIONS) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A random direction that depends on the value alone: (dimensions,) float32 of length 1."""
    digest = hashlib.sha256(json.dumps(value, sort_keys=True).encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    vector = generator.standard_normal(dimensions).astype(np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def query_vector(document: Document) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The vector of a document, as the query that finds it."""
    return fake_vector(document.input)


class FakeEmbedder:
    """Records the inputs that it embeds."""

    def __init__(self, **recipe_changes: Any) -> None:
        self.recipe = fake_recipe(**recipe_changes)
        self.embedded: list[Any] = []

    def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        for index, value in enumerate(inputs):
            self.embedded.append(value)
            yield index, fake_vector(value, self.recipe.dimensions)


class ReadingAhead(FakeEmbedder):
    """Takes 256 inputs, or all, before it returns their vectors. Real embedders read ahead as well."""

    def stream(self, inputs: Iterable[Any]) -> Iterator[tuple[int, Any]]:
        window: list[Any] = []
        for result in super().stream(inputs):
            window.append(result)
            if len(window) == 256:
                yield from window
                window = []
        yield from window


def passages(count: int, source: str = "notes") -> list[Document]:
    """Three passages per source, with metadata of every type."""
    return [
        Document(
            f"{source}/{number // 3}.md",
            "text",
            locator=f"lines={number},{number}",
            text=f"passage {number} of {source}: naïve café 数字",
            metadata={
                "number": number,
                "share": number / 7,
                "even": number % 2 == 0,
                "tags": ["a", "b"],
                "deep": {"x": [1]},
            },
        )
        for number in range(count)
    ]

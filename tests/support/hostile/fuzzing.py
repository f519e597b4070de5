"""Embeds and loads mutated files among valid ones, and checks that nothing reaches beyond an item."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qwen3vl import Embedder, MediaPolicy
from qwen3vl.errors import ItemError
from qwen3vl.loaders import Loader
from tests.support.hostile.file import HostileFile
from tests.support.hostile.seeds import seeds

NEIGHBOUR_FILES = ("rgb.png", "drawing.pdf", "mpeg4.mp4")
ROUNDING = 2e-6
"""Maximum difference of the same input's vectors in different batches, float32."""
FILES_PER_NEIGHBOUR = 4
"""Hostile files between two valid inputs of a batch."""


def write_neighbours(folder: Path) -> list[Any]:
    """Write valid files, and return inputs that are a text and these files."""
    folder.mkdir()
    for name in NEIGHBOUR_FILES:
        (folder / name).write_bytes(seeds()[name])
    image, page, video = (str(folder / name) for name in NEIGHBOUR_FILES)
    return ["a red circle", {"image": image}, {"image": f"{page}#page=1"}, {"video": video}]


@dataclass(frozen=True, slots=True, eq=False)
class Fuzzer:
    """Runs files through an embedder and a loader.

    Attributes:
        embedder: Embeds them.
        folder: The only folder that its policy allows.
        neighbours: Valid inputs.
        vectors: The vectors of these alone, (num_neighbours, dimension) float32.
    """

    embedder: Embedder
    folder: Path
    neighbours: list[Any]
    vectors: NDArray[np.float32]

    @classmethod
    def start(cls, folder: Path, policy: MediaPolicy) -> Fuzzer:
        """Load the model, and embed the neighbours alone, each in a call of its own."""
        embedder = Embedder("tiny", policy=policy, device="cpu")
        neighbours = write_neighbours(folder / "valid")
        vectors = np.concatenate([embedder.embed([neighbour]) for neighbour in neighbours])
        return cls(embedder, folder, neighbours, vectors)

    def run(self, files: Sequence[HostileFile]) -> Counter[str]:
        """Embed and load files, and check all promises about them.

        Args:
            files: They are written into a folder, which is emptied again.

        Returns:
            Number of files by outcome, and by what the loader has made of them.

        Raises:
            AssertionError: A promise is broken.
        """
        folder = self.folder / "files"
        folder.mkdir()
        paths = [file.write(folder) for file in files]
        try:
            errors, loaded = self.embed(files, folder), self.load(files, folder)
        finally:
            for path in paths:
                path.unlink()
            folder.rmdir()
        outcomes = Counter(f"embedder: {describe(error)}" for error in errors.values())
        for kinds in loaded.values():
            outcomes.update(f"loader: {kind}" for kind in kinds)
        return outcomes

    def embed(self, files: Sequence[HostileFile], folder: Path) -> dict[str, ItemError | None]:
        """Embed the files in one batch, with a neighbour after every few of them, and check the vectors.

        Args:
            files: Files in the folder.
            folder: Where they are.

        Returns:
            The error of each file by name; None if it has a vector.
        """
        inputs: list[Any] = []
        places: dict[int, int] = {}
        names: dict[int, str] = {}
        for number, file in enumerate(files):
            names[len(inputs)] = file.name
            inputs.append(file.item(folder))
            if number % FILES_PER_NEIGHBOUR == 0:
                neighbour = number // FILES_PER_NEIGHBOUR % len(self.neighbours)
                places[len(inputs)] = neighbour
                inputs.append(self.neighbours[neighbour])
        batch = self.embedder.embed(inputs, on_error="collect")
        failed = {error.index: error for error in batch.errors}
        for index, neighbour in places.items():
            assert index not in failed, f"a valid input failed: {failed[index]}"
            difference = np.abs(batch.values[index] - self.vectors[neighbour]).max()
            assert difference <= ROUNDING, f"the vector of valid input {neighbour} changed by {difference}"
        for index, name in names.items():
            assert index in failed or np.isfinite(batch.values[index]).all(), f"{name}: the vector is not finite"
        return {name: failed.get(index) for index, name in names.items()}

    def load(self, files: Sequence[HostileFile], folder: Path) -> dict[str, Counter[str]]:
        """Load the folder of the files; each of them yields something, and nothing else does.

        Args:
            files: Files in the folder.
            folder: Where they are.

        Returns:
            How many documents and failures each file has yielded, by name.
        """
        names = {str(folder / file.name): file.name for file in files}
        kinds: dict[str, Counter[str]] = {file.name: Counter() for file in files}
        for loaded in Loader(policy=self.embedder.policy).load(folder):
            source = loaded.source if loaded.source in names else loaded.source.rpartition("#")[0]
            kinds[names[source]][type(loaded).__name__] += 1
        for name, counted in kinds.items():
            assert set(counted) <= {"Document", "LoadFailure"}, f"{name}: {counted}"
            assert counted, f"the loader says nothing of {name}"
        return kinds


def describe(error: ItemError | None) -> str:
    """Return a short name of an item's outcome: the type of the error, or that there is a vector."""
    return "vector" if error is None else type(error.__cause__).__name__

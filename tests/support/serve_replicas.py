"""Replicas without a model: their vectors tell which process has computed them, and inputs say what goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import numpy as np
from qwen3vl_ray.serving.messages import ReplicaAnswer, ReplicaCall
from qwen3vl_ray.serving.replicas import ModelChoice

from qwen3vl.errors import InputError, MediaError, RecipeError, query_error
from qwen3vl.recipe import Recipe
from qwen3vl.results import ItemOutput, failed_output

RECIPE = Recipe(
    model="none",
    revision="",
    weights="0",
    prompt_version=1,
    instruction="Find it.",
    max_length=1,
    min_pixels=1,
    max_pixels=1,
    total_pixels=1,
    fps=1.0,
    max_frames=1,
    exif=False,
    dimensions=1,
    normalised=True,
)


class ProcessReplica:
    """Answers with its process id.

    Texts of items: "broken" fails; "wait" waits until it is cancelled, and then writes a file; "die once" kills the
    first process that gets it, and "die" each.
    """

    def __init__(self, folder: Path, digest: str = RECIPE.digest) -> None:
        self._folder = folder
        self._digest = digest

    async def describe(self, choice: ModelChoice) -> Recipe:
        return RECIPE

    async def run(self, call: ReplicaCall) -> ReplicaAnswer:
        if call.digest != self._digest:
            return ReplicaAnswer(error=RecipeError("another recipe"))
        if call.query is not None and call.query.texts == ("broken",):
            error = query_error("photo.png", "it is broken")
            error.__cause__ = MediaError("it is broken")
            return ReplicaAnswer(error=error)
        outputs = []
        for index, item in enumerate(call.items):
            text = "".join(item.texts)
            if text == "wait":
                await self._wait()
            if text == "die" or (text == "die once" and self._is_first()):
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "broken":
                outputs.append(failed_output(index, item.name, InputError("it is broken")))
            else:
                process = np.float32(os.getpid())
                value = np.asarray(process if call.query is not None else [process])
                outputs.append(ItemOutput(index, value, notice=text, num_tokens=1))
        return ReplicaAnswer(outputs)

    async def _wait(self) -> None:
        (self._folder / "waiting").touch()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            (self._folder / "cancelled").touch()
            raise

    def _is_first(self) -> bool:
        try:
            (self._folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

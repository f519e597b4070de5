"""An operator that holds back the last page of a PDF until the vectors of the first ones have left the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from qwen3vl_ray import Embed

from tests.ray.workers import wait_for


class GatedEmbed(Embed):
    """Embeds batches, those with one locator after a file is there.

    Args:
        locator: That of a row.
        gate: The file.
        **arguments: Those of `Embed`.
    """

    def __init__(self, locator: str, gate: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._locator = locator
        self._gate = Path(gate)

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._locator in batch["locator"].to_pylist():
            wait_for(self._gate.exists, 120)
        return super().__call__(batch)

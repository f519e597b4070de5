"""Which data sets are evaluated."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3vl.errors import InputError
from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from qwen3vl.evaluation.mmeb_v2.groups import GROUPS
from qwen3vl.evaluation.mmeb_v2.specs import DatasetSpec


def select(names: Sequence[str]) -> list[DatasetSpec]:
    """Return data sets by name.

    Args:
        names: Names of data sets, of groups as `IMG_CLS`, or of parts as `image`; empty for all.

    Returns:
        The data sets in the order of the benchmark, each once.

    Raises:
        InputError: A name is unknown.
    """
    chosen: set[str] = set()
    for name in names:
        found = [spec.name for spec in DATASETS.values() if name in (spec.name, spec.group.name, spec.group.modality)]
        if not found:
            groups = ", ".join(group.name for group in GROUPS)
            raise InputError(
                f"there is no data set {name!r} in MMEB-v2. Name any of {', '.join(DATASETS)}; groups of them: "
                f"{groups}; or image, video or visdoc"
            )
        chosen.update(found)
    return [spec for spec in DATASETS.values() if not names or spec.name in chosen]

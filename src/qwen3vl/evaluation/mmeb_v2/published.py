"""The figures that the official README publishes, in percent (commit 8ce3aab)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_COLUMNS = (
    *("Image CLS", "Image QA", "Image RET", "Image GD", "Image Overall"),
    *("Video CLS", "Video QA", "Video RET", "Video MRET", "Video Overall"),
    *("VisDoc VDRv1", "VisDoc VDRv2", "VisDoc VR", "VisDoc OOD", "VisDoc Overall", "All"),
)
_RETRIEVAL_COLUMNS = ("Avg", "Image", "Video", "VisDoc")


def _figures(columns: Sequence[str], *figures: float) -> Mapping[str, float]:
    return dict(zip(columns, figures, strict=True))


EMBEDDING_FIGURES: Mapping[str, Mapping[str, float]] = {
    "Qwen3-VL-Embedding-2B": _figures(
        _COLUMNS,
        *(70.3, 74.3, 74.8, 88.5, 75.0),
        *(71.9, 64.9, 53.9, 53.3, 61.9),
        *(84.4, 65.3, 86.4, 69.4, 79.2, 73.2),
    ),
    "Qwen3-VL-Embedding-8B": _figures(
        _COLUMNS,
        *(74.2, 81.1, 80.0, 92.2, 80.1),
        *(78.4, 71.0, 58.7, 56.1, 67.1),
        *(87.2, 69.9, 88.7, 73.3, 82.4, 77.8),
    ),
}
"""Of all data sets: by model, by column."""
RERANKER_FIGURES: Mapping[str, Mapping[str, float]] = {
    "Qwen3-VL-Embedding-2B": _figures(_RETRIEVAL_COLUMNS, 73.4, 74.8, 53.6, 79.2),
    "Qwen3-VL-Reranker-2B": _figures(_RETRIEVAL_COLUMNS, 75.2, 74.0, 53.2, 83.2),
    "Qwen3-VL-Reranker-8B": _figures(_RETRIEVAL_COLUMNS, 79.2, 78.2, 61.0, 85.8),
}
"""Of the data sets of retrieval, without reranker and with one of two: by model, by column."""

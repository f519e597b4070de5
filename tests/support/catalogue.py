"""A catalogue of parts with numbers, for searches by words."""

from __future__ import annotations

from collections.abc import Sequence

from qwen3vl import Document, Hit

MATERIALS = ("steel", "brass", "copper", "nylon", "rubber", "glass")


def parts(count: int = 120) -> list[Document]:
    """Parts of a catalogue, each with its number; three per file."""
    return [
        Document(
            f"catalogue/pump_{number // 3}.md",
            "text",
            locator=f"lines={number},{number}",
            text=f"Valve AX-{7000 + number} of {MATERIALS[number % 6]} for pumps" + ", sealed" * (number % 5),
            metadata={"number": number, "even": number % 2 == 0},
        )
        for number in range(count)
    ]


def numbers(hits: Sequence[Hit]) -> list[int]:
    return [int(hit.document.metadata["number"]) for hit in hits]

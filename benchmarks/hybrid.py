"""Recall of dense, text, hybrid and reranked search for questions by words, pictures, and both, as a table and a plot.

    uv run python -m benchmarks.hybrid [--pages 1500] [--plot docs/hybrid.png]

The pages of a catalogue are drawn scenes, which the tiny model understands, with a text beside each, which it does not:
a part's number, the name of an inspector, and a sentence. Parts, names and words of sentences occur on several pages in
other combinations. The reranker scores the first 20 hits of hybrid search, pictures and texts; the tiny one does not
understand these texts either.
"""

from __future__ import annotations

import argparse
import tempfile
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from random import Random
from typing import cast

import matplotlib as mpl
from qwen3vl_qdrant import Layout, QdrantEdgeStore

from qwen3vl import Document, Embedder, Reranker, Retriever, ingest
from qwen3vl.demo.scenes import Scene, random_scene
from qwen3vl.stores import Mode

K = 5
CANDIDATES = 20
SEARCHES = {"dense": "#8da0cb", "text": "#fc8d62", "hybrid": "#2a7f62", "hybrid, reranked": "#8a6fb5"}
"""What is compared, with its colour in the plot."""
QUESTIONS = 200
FIRST_NAMES = (
    "Marit",
    "Jonas",
    "Aylin",
    "Tomasz",
    "Ingrid",
    "Kofi",
    "Leila",
    "Pavel",
    "Noor",
    "Sven",
    "Chiara",
    "Hugo",
)
LAST_NAMES = (
    "Solheim",
    "Brandt",
    "Kaya",
    "Nowak",
    "Lindqvist",
    "Mensah",
    "Haddad",
    "Novotny",
    "Visser",
    "Berg",
    "Ricci",
    "Moreau",
    "Okafor",
    "Keller",
)
SUBJECTS = ("pump", "valve", "gasket", "impeller", "coupling", "bearing", "strainer", "actuator", "manifold", "flange")
VERBS = ("rattles", "leaks", "sticks", "overheats", "corrodes", "vibrates", "drifts", "stalls")
PLACES = ("weir", "boiler", "jetty", "sluice", "turbine", "cellar", "gantry", "culvert", "reservoir", "spillway")
TIMES = ("at dawn", "after the flood", "below zero", "under full load", "since the spring audit", "when the tide turns")


@dataclass(frozen=True)
class Page:
    """One page: its picture and what its text says."""

    scene: Scene
    part: str
    inspector: str
    sentence: str

    @property
    def text(self) -> str:
        number = int(self.part[-4:])
        return (
            f"Data sheet of part {self.part}, which replaces {self.part[:3]}{number - 7}. "
            f"Inspected by {self.inspector}. Remark: {self.sentence}. "
            f"Torque {number % 90 + 10} Nm, pressure {number % 16 + 1} bar."
        )


def make_pages(count: int, random: Random) -> list[Page]:
    scenes: dict[object, Scene] = {}
    while len(scenes) < count:
        scene = random_scene(random)
        scenes.setdefault(scene.key, scene)
    return [
        Page(
            scene,
            f"{random.choice('ABC')}{random.choice('XYZ')}-{7 * number % 9000 + 1000:04d}",
            f"{random.choice(FIRST_NAMES)} {random.choice(LAST_NAMES)}",
            f"the {random.choice(SUBJECTS)} {random.choice(VERBS)} near the {random.choice(PLACES)} "
            f"{random.choice(TIMES)}",
        )
        for number, scene in enumerate(scenes.values())
    ]


def one_thing(page: Page) -> str:
    """Describe one thing of the picture: many pages show it."""
    return page.scene.things[0].describe()


GROUPS: dict[str, Callable[[Page], tuple[str, Callable[[Page], bool]]]] = {
    "part number": lambda page: (page.part, lambda other: other.part == page.part),
    "part number in a sentence": lambda page: (
        f"What is the torque of {page.part}?",
        lambda other: other.part == page.part,
    ),
    "quoted words": lambda page: (f'"{page.sentence}"', lambda other: other.sentence == page.sentence),
    "picture": lambda page: (page.scene.caption(), lambda other: other.scene == page.scene),
    "picture and name": lambda page: (
        f"{one_thing(page)}, inspected by {page.inspector}",
        lambda other: other.inspector == page.inspector and page.scene.things[0] in other.scene.things,
    ),
}
"""By group, the question about a page, and whether a page answers it."""


def to_document(number: int, page: Page, random: Random) -> Document:
    data = BytesIO()
    page.scene.draw(random).save(data, "PNG")
    image = f"data:image/png;base64,{b64encode(data.getvalue()).decode()}"
    return Document(
        "catalogue", "page", locator=f"{number}", image=image, text=page.text, fused=False, metadata={"number": number}
    )


def evaluate(pages: list[Page], seed: int) -> dict[str, dict[str, float]]:
    """Return recall@5 by group and search: the share of the questions' pages (five at most) in the first five hits."""
    random = Random(seed)
    embedder = Embedder("tiny")
    recalls: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = QdrantEdgeStore(folder, layout=Layout(hybrid=True))
        report = ingest((to_document(number, page, random) for number, page in enumerate(pages)), embedder, store)
        if report.failed:
            raise RuntimeError(report.failed[0])
        retriever = Retriever(embedder, store)
        reranking = Retriever(embedder, store, Reranker("tiny"), candidates=CANDIDATES)
        for group, ask in GROUPS.items():
            questions = [ask(page) for page in random.sample(pages, QUESTIONS)]
            recalls[group] = {}
            for name in SEARCHES:
                mode, _, reranked = name.partition(", ")
                search = reranking.search_many if reranked else retriever.search_many
                found = search([question for question, _ in questions], K, mode=cast("Mode", mode))
                shares = []
                for hits, (_, answers) in zip(found, questions, strict=True):
                    num_right = sum(answers(pages[int(hit.document.metadata["number"])]) for hit in hits)
                    shares.append(num_right / min(K, sum(map(answers, pages))))
                recalls[group][name] = sum(shares) / len(shares)
        store.close()
    return recalls


def plot(recalls: dict[str, dict[str, float]], path: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    for column, (name, colour) in enumerate(SEARCHES.items()):
        positions = [row + (column - 1.5) * 0.21 for row in range(len(recalls))]
        bars = axes.bar(positions, [group[name] for group in recalls.values()], 0.19, label=name, color=colour)
        axes.bar_label(bars, fmt="%.2f", fontsize=7, padding=1)
    axes.set_xticks(
        range(len(recalls)), [group.replace(" in ", "\nin ").replace(" and ", "\nand ") for group in recalls]
    )
    axes.set_ylim(0, 1.1)
    axes.set_ylabel(f"recall@{K}")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(SEARCHES), frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    recalls = evaluate(make_pages(arguments.pages, Random(arguments.seed)), arguments.seed)
    print(f"| questions by | {' | '.join(SEARCHES)} |\n| --- | {' | '.join('---:' for _ in SEARCHES)} |")
    for group, by_search in recalls.items():
        print(f"| {group} | {' | '.join(f'{recall:.3f}' for recall in by_search.values())} |")
    if arguments.plot is not None:
        plot(recalls, arguments.plot)


if __name__ == "__main__":
    main()

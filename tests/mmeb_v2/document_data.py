"""Small visual document data sets in the published format: the layout of BEIR, with pages as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from tests.mmeb_v2.published_files import draw, encoded_image, save_picture, write_split

QUESTIONS = (
    "What is the date mentioned in the letter?",
    "How large was the share of renewable energy in 2019?",
    "Which figure shows the loss over the number of steps?",
    "Quel est le montant total de la facture ?",
)
LONG_NAME = "arxiv_2006.01234v3_a_very_long_name_of_a_figure_that_is_cut_off_1234567890"
Grades = Sequence[Mapping[Any, int]]
"""For each query, the grades of its pages."""


def write_vidore_v1(data: Path) -> None:
    """Write ViDoRe_docvqa: numbered pages in the folder of images, of which each query has one."""
    for number in range(8):
        save_picture(data / DATASETS["ViDoRe_docvqa"].media / f"{number + 10}.png", 200 + number, 96, 128)
    grades = [{10: 1}, {17: 1}, {12: 1, 13: 0}, {11: 1}]
    _write(data, "ViDoRe_docvqa", {number + 10: 200 + number for number in range(8)}, grades)


def write_vidore_v2(data: Path) -> None:
    """Write ViDoRe_esg_reports_human_labeled_v2: several graded pages, which are only in the annotations."""
    grades = [{5: 2, 1: 1}, {3: 1}, {8: 1, 0: 2, 4: 1}, {6: 1, 7: 1}]
    _write(data, "ViDoRe_esg_reports_human_labeled_v2", {number: 220 + number for number in range(9)}, grades)


def write_visrag(data: Path) -> None:
    """Write VisRAG_ArxivQA: pages that are named by files, some with long names."""
    names = [f"{LONG_NAME}_{number}.jpg" if number % 2 else f"figure.{number}.png" for number in range(7)]
    grades = [{names[0]: 1}, {names[3]: 1}, {names[6]: 1}, {names[1]: 1}]
    _write(data, "VisRAG_ArxivQA", {name: 240 + number for number, name in enumerate(names)}, grades)


def write_vidoseek(data: Path) -> None:
    """Write ViDoSeek-page: pages that are named by document and number."""
    names = [f"doc-{number // 3}_{number % 3}" for number in range(8)]
    grades = [{names[2]: 1}, {names[7]: 1}, {names[0]: 1}, {names[4]: 1}]
    _write(data, "ViDoSeek-page", {name: 260 + number for number, name in enumerate(names)}, grades)


def write_mmlongbench(data: Path) -> None:
    """Write MMLongBench-doc: all pages of a document are relevant."""
    names = [f"report-{number // 4}_page{number % 4}" for number in range(10)]
    grades = [dict.fromkeys(names[:4], 1), dict.fromkeys(names[4:8], 1), dict.fromkeys(names[8:], 1), {names[5]: 1}]
    _write(data, "MMLongBench-doc", {name: 280 + number for number, name in enumerate(names)}, grades)


def _write(data: Path, name: str, pages: Mapping[Any, int], grades: Grades) -> None:
    """Write pages, by name with the seeds that they are drawn with, queries, and their relevant pages."""
    source = DATASETS[name].source
    id_of = str if isinstance(next(iter(pages)), str) else int
    corpus = [{"corpus-id": page, "image": encoded_image(draw(seed, 96, 128))} for page, seed in pages.items()]
    queries = [{"query-id": id_of(number), "query": QUESTIONS[number]} for number in range(len(grades))]
    qrels = [
        {"query-id": id_of(number), "corpus-id": page, "score": grade}
        for number, of_query in enumerate(grades)
        for page, grade in of_query.items()
    ]
    write_split(data, replace(source, config="corpus"), corpus, images=("image",), files=2)
    write_split(data, replace(source, config="queries"), queries)
    write_split(data, replace(source, config="qrels"), qrels)

"""Small image data sets in the published format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from tests.mmeb_v2.published_files import save_picture, write_split

MEDIA = "image-tasks"
CLASSES = ("bicycle", "aeroplane", "dining table", "sofa", "train", "potted plant")
CHART_ANSWERS = ("14", "0.57", "Inspired", "Yes", "")
"""The last one is an empty answer, which is a candidate like any other."""
CAPTIONS = (
    "A man with a red helmet on a small moped on a dirt road.",
    "A woman wearing a net on her head cutting a cake.",
    "A child holding a flowered umbrella and petting a yak.",
    "A young boy standing in front of a computer keyboard.",
    "a boy wearing headphones using one computer in a long row of computers",
    "He is listening intently to the computer at school.",
    "A person riding a very tall bike in the street.",
)


def write_image_cls(data: Path) -> None:
    """Write VOC2007: pictures without text, and class names of which the first is right."""
    rows = []
    for number in range(4):
        path = _picture(data, f"VOC2007/{number:06d}.png", 100 + number)
        instruction = "<|image_1|> Identify the object shown in the image\n"
        rows.append(query_row(instruction, "", path, [*CLASSES[number:], *CLASSES[:number]]))
    write_split(data, DATASETS["VOC2007"].source, rows, files=2)


def write_image_qa(data: Path) -> None:
    """Write ChartQA: pictures with questions, and answers of which one is there twice, and one is empty."""
    questions = ("How many food items are shown?", "What is the difference?", "What is the title", "Is it true?")
    rows = []
    for number, question in enumerate(questions):
        path = _picture(data, f"ChartQA/multi_col_{number}.png", 110 + number, 120, 80)
        answers = [*CHART_ANSWERS[number:], *CHART_ANSWERS[: number + 1]]
        instruction = "<|image_1|>\nRepresent the given image with the following question: "
        rows.append(query_row(instruction, question, path, answers))
    write_split(data, DATASETS["ChartQA"].source, rows)


def write_image_i2t(data: Path) -> None:
    """Write MSCOCO_i2t: pictures, and captions that other queries have as well."""
    rows = []
    for number in range(4):
        path = _picture(data, f"MSCOCO_i2t/COCO_val2014_{number:012d}.jpg", 120 + number, 128, 96)
        instruction = "<|image_1|> Find an image caption describing the given everyday image."
        rows.append(query_row(instruction, "", path, [*CAPTIONS[number:], *CAPTIONS[: number - 1]]))
    write_split(data, DATASETS["MSCOCO_i2t"].source, rows)


def write_dialogues(data: Path) -> None:
    """Write VisDial: dialogues as texts, and pictures without captions, several queries with the same ones."""
    pictures = [_picture(data, f"VisDial/{number}.png", 130 + number, 64 + 16 * number, 80) for number in range(5)]
    rows = []
    for number in range(4):
        text = f"Q:is the photo in color A:yes Q:how many people are there A:{number} Q:{CAPTIONS[number]}"
        candidates = [*pictures[number:], *pictures[:number]]
        instruction = "Represent the given dialogue about an image, which is used for image retrieval: "
        rows.append(query_row(instruction, text, "", [""] * len(candidates), candidates))
    write_split(data, DATASETS["VisDial"].source, rows)


def write_captioned(data: Path) -> None:
    """Write WebQA: questions, and pictures of which most have a caption, and one another one at another query."""
    pictures = [_picture(data, f"WebQA/{number}.png", 140 + number, 96, 96) for number in range(6)]
    captions = [f" {CAPTIONS[number]}\n" if number != 2 else "  " for number in range(len(pictures))]
    rows = []
    for number in range(4):
        order = [*range(number, len(pictures)), *range(number)]
        instruction = "<|image_1|> Find a Wikipedia image that answers this question:"
        question = f"Which of these shows number {number}?"
        captions[4] += "Of the same picture." * number
        rows.append(query_row(instruction, question, "", [captions[i] for i in order], [pictures[i] for i in order]))
    write_split(data, DATASETS["WebQA"].source, rows)


def write_image_i2i(data: Path) -> None:
    """Write CIRR: pictures with texts that change them, and pictures as candidates.

    One candidate has a text, which is not used, because the first one of the query has none.
    """
    pictures = [_picture(data, f"CIRR/dev-{number}.png", 150 + number, 100, 70 + 10 * number) for number in range(6)]
    rows = []
    for number in range(4):
        candidates = [*pictures[number + 1 :], *pictures[:number]]
        texts = ["", "A text.", *[""] * (len(candidates) - 2)] if number == 2 else [""] * len(candidates)
        instruction = "<|image_1|>\nGiven an image, find a similar everyday image with the described changes: "
        rows.append(query_row(instruction, CAPTIONS[number], pictures[number], texts, candidates))
    write_split(data, DATASETS["CIRR"].source, rows)


def write_grounding(data: Path) -> None:
    """Write RefCOCO-Matching: candidates with texts, of which two are parts of the same picture."""
    pictures = [_picture(data, f"RefCOCO/{number}.png", 160 + number) for number in range(4)]
    parts = [(pictures[number % 4], f'"{CLASSES[number % 6]} on the left {number}"') for number in range(6)]
    rows = []
    for number in range(4):
        order = [*parts[number:], *parts[:number]]
        text = f'"{CLASSES[number]} on the left"'
        instruction = "<|image_1|> Select the portion of the image that follows the language expressions: "
        target = "<|image_1|> Represent the given cropped image of the object"
        row = query_row(instruction, text, pictures[number], [part[1] for part in order], [part[0] for part in order])
        rows.append({**row, "tgt_inst": target})
    write_split(data, DATASETS["RefCOCO-Matching"].source, rows)


def _picture(data: Path, path: str, seed: int, width: int = 96, height: int = 64) -> str:
    save_picture(data / MEDIA / path, seed, width, height)
    return path


def query_row(
    instruction: str, text: str, picture: str, texts: Sequence[str], pictures: Sequence[str] | None = None
) -> dict[str, Any]:
    """Return the row of a query with its candidates, of which the first is right."""
    return {
        "qry_inst": instruction,
        "qry_text": text,
        "qry_img_path": picture,
        "tgt_inst": "",
        "tgt_text": list(texts),
        "tgt_img_path": list(pictures or [""] * len(texts)),
    }

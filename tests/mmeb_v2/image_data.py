"""Small image data sets in the published format."""

from __future__ import annotations

from pathlib import Path

from qwen3vl.evaluation.mmeb_v2.catalogue import DATASETS
from tests.mmeb_v2.published_files import save_picture, write_split

MEDIA = "image-tasks"
CLASSES = ("bicycle", "aeroplane", "dining table", "sofa", "train", "potted plant")


def write_image_cls(data: Path) -> None:
    """Write VOC2007: pictures without text, and class names of which the first is right."""
    rows = []
    for number in range(4):
        path = f"VOC2007/{number:06d}.png"
        save_picture(data / MEDIA / path, seed=100 + number)
        rows.append({
            "qry_inst": "<|image_1|> Identify the object shown in the image\n",
            "qry_text": "",
            "qry_img_path": path,
            "tgt_inst": "",
            "tgt_text": [*CLASSES[number:], *CLASSES[:number]],
            "tgt_img_path": [""] * len(CLASSES),
        })  # fmt: skip
    write_split(data, DATASETS["VOC2007"].source, rows, files=2)

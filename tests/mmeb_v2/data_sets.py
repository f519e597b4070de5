"""The data sets that are drawn for the tests: at least one for each kind of loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.mmeb_v2 import document_data, image_data

WRITERS: Mapping[str, Callable[[Path], None]] = {
    "VOC2007": image_data.write_image_cls,
    "ChartQA": image_data.write_image_qa,
    "MSCOCO_i2t": image_data.write_image_i2t,
    "VisDial": image_data.write_dialogues,
    "WebQA": image_data.write_captioned,
    "CIRR": image_data.write_image_i2i,
    "RefCOCO-Matching": image_data.write_grounding,
    "ViDoRe_docvqa": document_data.write_vidore_v1,
    "ViDoRe_esg_reports_human_labeled_v2": document_data.write_vidore_v2,
    "VisRAG_ArxivQA": document_data.write_visrag,
    "ViDoSeek-page": document_data.write_vidoseek,
    "MMLongBench-doc": document_data.write_mmlongbench,
}
"""By name of the data set: the function that writes its files below the folder of all data."""
